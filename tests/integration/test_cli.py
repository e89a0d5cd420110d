"""publish, run, tail, check and topics against a real Kafka and a real Redis."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from streamer import cli
from streamer.records import Coordinate, Result
from tests.conftest import MakeTopic
from tests.servers import KafkaServer, RedisServer

ROOT = Path(__file__).parents[2]
_numbers = itertools.count()


class Topics(NamedTuple):
    input: str
    output: str
    dead_letters: str


class Streamer(Protocol):
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def __call__(self, *arguments: str) -> tuple[int, str, str]: ...


@pytest.fixture
def topics(make_topic: MakeTopic) -> Topics:
    return Topics(make_topic("in", 2), make_topic("out", 2), make_topic("dlq", 2))


@pytest.fixture
def environ(
    kafka: KafkaServer, redis_url: str, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What makes every command use the test's servers and topics, and the stand-in model."""
    variables = {
        "STREAMER__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STREAMER__KAFKA__GROUP_ID": f"cli-{os.getpid()}-{next(_numbers)}",
        "STREAMER__REDIS__URL": redis_url,
        "STREAMER__MODEL__BACKEND": "fake",
        **{f"STREAMER__TOPICS__{role.upper()}": name for role, name in topics._asdict().items()},
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def streamer(environ: dict[str, str], capfd: pytest.CaptureFixture[str]) -> Streamer:
    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def process(environ: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """A command in a process of its own."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "streamer", *arguments],
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def contents(streamer: Streamer, topic: str, *options: str) -> list[dict[str, object]]:
    arguments = ["tail", "--topic", topic, "--from-beginning", "--exit-when-idle", "1", "--json", *options]
    code, out, _ = streamer(*arguments)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


class TestPublish:
    def test_every_row_with_a_text_and_no_other(
        self, streamer: Streamer, topics: Topics, tmp_path: Path
    ) -> None:
        path = tmp_path / "reviews.csv.gz"
        rows = "".join(f"r{n},text {n},books\n" for n in range(1000))
        path.write_bytes(gzip.compress(f"id,text,shop\nbad,,x\n{rows}".encode() + b"bad,\xff,x\n"))
        code, out, err = streamer("publish", str(path), "--meta", "--key-field", "id")
        assert code == 1
        assert out.startswith("published 1,000 texts in ")
        assert out.endswith(f"; rows of {path} left out: 2\n")
        assert err == "line 2: the text is empty\nline 1003: not UTF-8\n"
        found = contents(streamer, topics.input)
        assert len(found) == 1000
        assert {"id": "r7", "text": "text 7", "meta": {"shop": "books"}} in found

    def test_a_whole_file_is_0(self, streamer: Streamer, topics: Topics, tmp_path: Path) -> None:
        path = tmp_path / "lines.txt"
        path.write_text("eins\nzwei\n")
        code, out, err = streamer("publish", str(path), "--rate", "50")
        assert (code, err) == (0, "")
        assert "published 2 texts" in out
        assert sorted(str(value["text"]) for value in contents(streamer, topics.input)) == ["eins", "zwei"]

    def test_keys_and_the_rate(
        self, streamer: Streamer, topics: Topics, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"text":"a","user":5}\n' * 10)
        started = time.monotonic()
        assert streamer("publish", str(path), "--key-field", "user", "--rate", "20")[0] == 0
        assert time.monotonic() - started >= 9 / 20
        found = contents(streamer, topics.input, "--dead")
        assert [(letter["key"], letter["partition"]) for letter in found] == [
            ("5", found[0]["partition"]) for _ in range(10)
        ]

    def test_a_topic_that_is_not_there(self, streamer: Streamer, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("a\n")
        code, out, err = streamer("publish", str(path), "--topic", "nobody-made-this")
        assert (code, out) == (3, "")
        assert "there is no topic nobody-made-this: create it with `streamer topics create`" in err

    def test_a_text_that_the_broker_does_not_take(self, streamer: Streamer, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("a\n" + "x" * 3_000_000 + "\n")
        code, out, err = streamer("publish", str(path))
        assert code == 1
        assert "published 1 texts" in out
        assert "the broker did not take 1 texts: 1 MSG_SIZE_TOO_LARGE" in err


class TestRun:
    def test_texts_become_results_and_dead_letters(
        self,
        streamer: Streamer,
        topics: Topics,
        tmp_path: Path,
        kafka: KafkaServer,
        process: Callable[..., subprocess.Popen[str]],
    ) -> None:
        path = tmp_path / "texts.txt"
        path.write_text("good\nbad\n")
        assert streamer("publish", str(path))[0] == 0
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topics.input, b'{"text": "a cust\xfcmer"}')
        producer.flush(10)
        worker = process("run", "--exit-when-idle", "1")
        _, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        assert "done: 2 results, 1 dead letters, 0 skipped, of 3 records" in err
        assert "cust" not in err  # no payloads in the log
        assert [set(value) >= {"id", "label", "score"} for value in contents(streamer, topics.output)] == [
            True
        ] * 2
        (dead,) = contents(streamer, topics.dead_letters, "--dead")
        headers = dead["headers"]
        assert isinstance(headers, dict)
        assert (headers["dlq.reason"], headers["dlq.topic"]) == ("invalid_json", topics.input)
        code, out, _ = streamer("tail", "--dead", "--from-beginning", "--max", "1")
        assert code == 0
        assert out.startswith("invalid_json") and f"{topics.input}[" in out

    def test_sigterm_drains_and_is_0(self, process: Callable[..., subprocess.Popen[str]]) -> None:
        worker = process("run")
        assert worker.stderr is not None
        for line in worker.stderr:
            if "partitions assigned" in line:
                break
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 0
        assert "done: 0 results" in err

    def test_a_missing_topic_is_3(
        self, process: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STREAMER__TOPICS__INPUT", "nobody-made-this")
        monkeypatch.setenv("STREAMER__LOG__FORMAT", "json")
        worker = process("run")
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 3
        lines = [json.loads(line) for line in err.splitlines()]
        assert (lines[-1]["level"], lines[-1]["exit_code"]) == ("error", 3)
        assert "streamer topics create" in lines[-1]["message"]

    def test_a_property_that_librdkafka_does_not_know_is_2(
        self, process: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STREAMER__KAFKA__CONSUMER__FETCH_MAXIMUM", "5")
        worker = process("run")
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 2
        said = json.loads(err.splitlines()[-1])["message"]
        assert 'kafka.consumer or kafka.producer: No such configuration property: "fetch.maximum"' in said


class TestTail:
    def result(self, id: str) -> bytes:
        source = Coordinate("texts.in", 0, 7, 0)
        return msgspec.json.encode(Result(id, "positive", 0.9, {"positive": 0.9}, "m", "1", source, 0))

    def test_readable_and_unable_to_steer_the_terminal(
        self, streamer: Streamer, topics: Topics, kafka: KafkaServer
    ) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topics.output, self.result("a\x1b[2Jb"), partition=0)
        producer.produce(topics.output, b"no result", partition=0)
        producer.flush(10)
        code, out, _ = streamer("tail", "--from-beginning", "--max", "2")
        assert code == 0
        first, second = out.splitlines()
        assert first.split() == ["positive", "90.0%", "a\ufffd[2Jb", "texts.in[0]@7", "m"]
        assert second == f"not a result: {topics.output}[0]@1"
        assert "\x1b" not in out

    def test_it_starts_at_the_end_and_commits_nothing(
        self, streamer: Streamer, topics: Topics, kafka: KafkaServer
    ) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topics.output, self.result("old"))
        producer.flush(10)
        assert streamer("tail", "--exit-when-idle", "0.5")[:2] == (0, "")
        assert len(contents(streamer, topics.output)) == 1
        assert len(contents(streamer, topics.output)) == 1

    @pytest.mark.parametrize("options", [["--json"], []])
    def test_a_reader_that_leaves(
        self,
        process: Callable[..., subprocess.Popen[str]],
        topics: Topics,
        kafka: KafkaServer,
        options: list[str],
    ) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for number in range(5000):
            producer.produce(topics.output, self.result(f"{number:0100}"))
        producer.flush(10)
        reader = process("tail", "--from-beginning", *options, "--exit-when-idle", "20")
        assert reader.stdout is not None and reader.stderr is not None
        reader.stdout.readline()
        reader.stdout.close()
        assert reader.wait(timeout=30) == 141
        assert reader.stderr.read() == ""
        reader.stderr.close()


class TestCheck:
    def test_all_is_well(self, streamer: Streamer, topics: Topics) -> None:
        code, out, _ = streamer("check")
        assert code == 0
        assert "FAIL" not in out
        for subject in ("configuration", "broker", "redis", "model"):
            assert f"ok    {subject}" in out
        assert "a single Redis" in out
        for topic in topics:
            assert f"{topic} (" in out
        assert f"{topics.input} (input): 2 partitions, 1 replica(s), kept 7 days" in out
        # A dead letter is its record and more: this topic was not made by `streamer topics create`.
        assert f"warn  topic          {topics.dead_letters} takes 1,048,588 bytes" in out

    def test_what_is_missing_is_told_with_the_way_out(
        self, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STREAMER__TOPICS__INPUT", "nobody-made-this")
        monkeypatch.setenv("STREAMER__REDIS__URL", "redis://:hunter2@127.0.0.1:1/0")
        given = str(ROOT / "config/streamer.yaml")
        code, out, err = streamer("check", "--config", given)
        assert code == 3
        assert "FAIL  topic          nobody-made-this (input) is missing" in out
        assert f"-> streamer topics create --config {given}\n" in out
        assert "FAIL  redis          redis://***@127.0.0.1:1/0: " in out
        assert "hunter2" not in out + err

    def test_no_broker(self, streamer: Streamer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMER__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
        started = time.monotonic()
        code, out, err = streamer("check")
        assert code == 3
        assert "FAIL  broker" in out and "Connection refused" in out
        assert "ok    redis" in out  # the rest is checked all the same
        assert err == ""
        assert time.monotonic() - started < 15

    def test_eviction(
        self, streamer: Streamer, breakable_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import redis

        monkeypatch.setenv("STREAMER__REDIS__URL", breakable_redis.url)
        with redis.Redis.from_url(breakable_redis.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            out = streamer("check")[1]
            assert "warn  redis" in out and "maxmemory-policy allkeys-lru would drop" in out
            client.config_set("maxmemory", "64mb")
            try:
                code, out, _ = streamer("check")
                assert code == 3
                assert "FAIL  redis" in out and "maxmemory-policy allkeys-lru drops ids in silence" in out
                assert "CONFIG SET maxmemory-policy noeviction" in out
            finally:
                client.config_set("maxmemory", "0")
                client.config_set("maxmemory-policy", "noeviction")

    def test_without_deduplication_redis_is_not_asked(
        self, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STREAMER__DEDUPLICATION__ENABLED", "false")
        monkeypatch.setenv("STREAMER__REDIS__URL", "redis://127.0.0.1:1/0")
        code, out, _ = streamer("check")
        assert code == 0
        assert "ok    redis          not needed" in out

    def test_a_property_that_librdkafka_does_not_know(
        self, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STREAMER__KAFKA__CONSUMER__FETCH_MAXIMUM", "5")
        code, out, _ = streamer("check")
        assert code == 2
        assert "FAIL  configuration" in out and 'No such configuration property: "fetch.maximum"' in out

    def test_compaction_and_retention(
        self, streamer: Streamer, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = make_topic("in", 1, {"retention.ms": "-1", "max.message.bytes": "1000"})
        compacted = make_topic("dlq", 1, {"cleanup.policy": "compact"})
        monkeypatch.setenv("STREAMER__TOPICS__INPUT", kept)
        monkeypatch.setenv("STREAMER__TOPICS__DEAD_LETTERS", compacted)
        code, out, _ = streamer("check")
        assert code == 3
        assert "one record removes another" in out
        assert f"{kept} is kept for ever, an id 7 days" in out
        assert "would not fit" not in out


class TestTopics:
    @pytest.fixture
    def fresh(
        self, streamer: Streamer, kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Topics]:
        names = Topics(*(f"{role}-{os.getpid()}-{next(_numbers)}-fresh" for role in Topics._fields))
        for role, name in names._asdict().items():
            monkeypatch.setenv(f"STREAMER__TOPICS__{role.upper()}", name)
        yield names
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        existing = admin.list_topics(timeout=10).topics
        if made := [name for name in names if name in existing]:
            for deleted in admin.delete_topics(made).values():
                deleted.result(timeout=10)

    def test_created_once_and_reported_after(self, streamer: Streamer, fresh: Topics) -> None:
        code, out, _ = streamer("topics", "create", "--dry-run")
        assert (code, out) == (0, "".join(f"{name}: would be created, 4 partitions\n" for name in fresh))
        code, out, _ = streamer("topics", "create", "--partitions", "3")
        assert (code, out) == (0, "".join(f"{name}: created, 3 partitions\n" for name in fresh))
        code, out, _ = streamer("topics", "create")
        assert (code, out) == (0, "".join(f"{name}: exists, 3 partitions\n" for name in fresh))
        code, out, _ = streamer("check")
        assert code == 0
        assert "warn" not in out  # what it creates, check has nothing to say about

    def test_a_topic_for_each_delay_and_somebody_who_must_read_them(
        self, streamer: Streamer, kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = f"retry-{os.getpid()}-{next(_numbers)}"
        monkeypatch.setenv("STREAMER__TOPICS__RETRY", base)
        monkeypatch.setenv("STREAMER__RETRY__POLICY", "delay")
        monkeypatch.setenv("STREAMER__RETRY__DELAYS", "[30s, 2h]")
        code, out, _ = streamer("check")
        assert code == 3 and f"{base}.30s (retry 1) is missing" in out
        code, _, err = streamer("run", "--exit-when-idle", "0")
        assert code == 3 and f"no topic {base}.30s, {base}.2h: create it with `streamer topics create`" in err
        code, out, _ = streamer("topics", "create", "--partitions", "2")
        assert code == 0
        assert f"{base}.30s: created, 2 partitions\n{base}.2h: created, 2 partitions\n" in out
        code, out, _ = streamer("check")
        assert code == 0 and f"{base}.2h (retry 2): 2 partitions" in out
        assert "warn  retry" in out and "-> streamer retry, beside the workers" in out
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for deleted in admin.delete_topics([f"{base}.30s", f"{base}.2h"]).values():
            deleted.result(timeout=10)

    def test_what_the_broker_refuses(self, streamer: Streamer, fresh: Topics) -> None:
        code, _, err = streamer("topics", "create", "--replication", "9")
        assert code == 3
        assert f"the broker refused to create {fresh.input}: " in err
