"""A line whose dead letters are looked at, replayed and purged: commands in this process or in their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message, Producer

from streamer import cli
from streamer.records import DeadLetter, Envelope, Record
from streamer.state.connection import connect
from streamer.state.entries import Entry
from streamer.state.index import RedisDeadLetters
from tests.integration.line import ROOT, Line

FAILED_AT = 1_750_000_000_000


class Desk:
    """`streamer dlq` over a line."""

    def __init__(self, line: Line, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.line = line
        self.config = folder / "dlq.yaml"
        self._capfd = capfd
        self._producer = Producer({"bootstrap.servers": line.config["kafka"]["bootstrap_servers"]})
        prefix = f"streamer:{line.config['kafka']['group_id']}:dead:"
        self.index = RedisDeadLetters(connect([line.config["redis"]["url"]]), prefix=prefix)

    def __call__(self, action: str, *options: str) -> tuple[int, str, str]:
        self.config.write_bytes(msgspec.yaml.encode(self.line.config))
        self._capfd.readouterr()
        try:
            code = cli.main(["dlq", action, *options, "--config", str(self.config)])
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            code = ended.code
        out, err = self._capfd.readouterr()
        return code, out, err

    def json(self, action: str, *options: str) -> list[dict[str, Any]]:
        code, out, err = self(action, *options, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def process(self, action: str, *options: str) -> subprocess.Popen[str]:
        self.config.write_bytes(msgspec.yaml.encode(self.line.config))
        return subprocess.Popen(
            [sys.executable, "-m", "streamer", "dlq", action, *options, "--config", str(self.config)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def bury(
        self,
        count: int,
        *,
        partition: int = 0,
        reason: str = "infer_failed",
        text: str = "text",
        first: int = 10_000,
        tries: int = 1,
    ) -> None:
        """Letters of records that nobody ever published: what a replay makes of them is good input."""
        came_at = int(time.time() * 1000)  # not long ago: the broker deletes what is older than its retention
        for number in range(count):
            value = msgspec.json.encode({"id": f"{partition}-{number}", "text": f"{text} {number}"})
            record = Record(self.line.input, partition, first + number, came_at + number, b"key", value, [])
            self.write(letter(record, reason, FAILED_AT + number, tries=tries), partition)
        assert self._producer.flush(60) == 0

    def write(self, envelope: Envelope, partition: int = 0) -> None:
        """A message for the dead-letter topic, as it is."""
        self._producer.produce(
            self.line.dead_letters,
            envelope.value,
            envelope.key,
            partition,
            headers=envelope.headers,  # type: ignore[arg-type]
            timestamp=envelope.timestamp,
        )

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def work(self) -> None:
        """A worker for as long as there is work."""
        worker = self.line.start("--exit-when-idle", "0.7")
        assert worker.wait() == 0, worker.log.read_text("utf-8")

    def read(self, topic: str) -> list[Message]:
        return self.line.reader(topic).all()

    def replayed(self) -> Counter[str]:
        """How often each origin is in the input topic."""
        found = (headers(message) for message in self.read(self.line.input))
        return Counter(one["replay.origin"] for one in found if "replay.origin" in one)

    def results(self) -> Counter[str]:
        return Counter(json.loads(message.value() or b"")["id"] for message in self.read(self.line.output))


def letter(record: Record, reason: str, failed_at: int, message: str = "why", tries: int = 1) -> Envelope:
    """As the worker writes it."""
    from streamer.codec import encode
    from streamer.ledger import Lane
    from streamer.records import Job, TopicPartition

    dead = DeadLetter(reason, "ValueError", message, "infer", tries, "m", failed_at)
    lane = Lane(TopicPartition(record.topic, record.partition))
    return encode(Job(record, lane, 0, settled=dead))


def headers(message: Message) -> dict[str, str]:
    pairs: Sequence[tuple[str, bytes | None]] = message.headers() or []  # type: ignore[assignment]
    return {name: (value or b"").decode(errors="replace") for name, value in pairs}


def state(index: RedisDeadLetters) -> tuple[list[Entry], dict[str, int], list[Any]]:
    """All that an index says."""
    return list(index.entries()), index.counts(), index.audits()
