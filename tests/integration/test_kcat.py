"""Kafka's other clients: kcat, which nobody here wrote, publishes and reads what streamer makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTopic
from tests.integration.line import Line
from tests.servers import KafkaServer

TEXTS = {"key-1": "\u8fd9\u672c\u4e66\u975e\u5e38\u597d", "key-2": "Would buy again, \u00e0 bient\u00f4t"}
SENT = {"trace": "abc", "tenant": "\u4e00", "empty": ""}


@pytest.fixture
def line(kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, tmp_path: Path) -> Line:
    return Line(tmp_path, kafka, redis_url, make_topic, 2)


def kcat(*arguments: str, given: bytes = b"") -> str:
    program = shutil.which("kcat")
    assert program, "kcat is needed: apt-get install kcat"
    done = subprocess.run([program, *arguments], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def read(kafka: KafkaServer, topic: str) -> list[dict[str, Any]]:
    """What kcat's JSON envelope says of each message, headers as a mapping."""
    out = kcat("-C", "-b", kafka.bootstrap_servers, "-t", topic, "-e", "-q", "-J", "-u")
    messages = [json.loads(row) for row in out.splitlines()]
    for message in messages:
        flat = message.get("headers", [])
        message["headers"] = dict(zip(flat[::2], flat[1::2], strict=True))
    return messages


def test_what_kcat_publishes_comes_back_whole(line: Line, kafka: KafkaServer) -> None:
    to = ("-P", "-b", kafka.bootstrap_servers, "-t", line.input, "-K", "\t")
    headers = [word for name, value in SENT.items() for word in ("-H", f"{name}={value}")]
    rows = [f"{key}\t{json.dumps({'id': f'id-{key}', 'text': text})}" for key, text in TEXTS.items()]
    kcat(*to, *headers, given="\n".join([*rows, "bad\tno JSON"]).encode())
    published = {message["key"]: message for message in read(kafka, line.input)}
    worker = line.start("--exit-when-idle", "1")
    assert worker.wait() == 0, worker.log.read_text("utf-8")
    line.close()

    results = {message["key"]: message for message in read(kafka, line.output)}
    assert results.keys() == TEXTS.keys()
    for key, message in results.items():
        came, result = published[key], json.loads(message["payload"])
        assert SENT.items() <= message["headers"].items()
        assert (result["id"], message["partition"]) == (f"id-{key}", came["partition"])
        assert result["source"] == {
            "topic": line.input,
            "partition": came["partition"],
            "offset": came["offset"],
            "timestamp": came["ts"],
        }

    (dead,) = read(kafka, line.dead_letters)
    came = published["bad"]
    assert (dead["key"], dead["payload"], dead["ts"]) == ("bad", "no JSON", came["ts"])
    assert SENT.items() <= dead["headers"].items()
    assert dead["headers"]["dlq.reason"] == "invalid_json"
    where = {name: dead["headers"][f"dlq.{name}"] for name in ("topic", "partition", "offset", "timestamp")}
    assert where == {
        "topic": line.input,
        "partition": str(came["partition"]),
        "offset": str(came["offset"]),
        "timestamp": str(came["ts"]),
    }
