"""Delayed retries end to end: workers and `streamer retry` as processes over a real Kafka and Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import pytest
import redis
from confluent_kafka import Message

from streamer import cli
from tests.conftest import MakeTopic
from tests.faults.worker import BUSY, Plan
from tests.integration.dlq import headers
from tests.integration.line import ROOT, Line, Worker, wait_until
from tests.servers import KafkaServer, RedisServer
from tests.servers.process import free_port

WORKER = ("tests.faults.worker", msgspec.json.encode(Plan()).decode(), "run")


class Delays(Line):
    """A line with two levels, of one and two seconds, and workers whose model has no time for some texts."""

    def __init__(
        self, folder: Path, kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, partitions: int
    ) -> None:
        super().__init__(folder, kafka, redis_url, make_topic, partitions)
        self.base = f"retry-{self.input}"
        self.config["topics"]["retry"] = self.base
        self.config["retry"] = {"policy": "delay", "deadline": 0, "delays": [1, 2]}
        self.config["kafka"]["consumer"] |= {"session.timeout.ms": "3000"}
        self.file = folder / "streamer.yaml"
        self.file.write_bytes(msgspec.yaml.encode(self.config))
        made = ["topics", "create", "--partitions", str(partitions), "--config", str(self.file)]
        assert cli.main(made) == 0

    def text(self, id: str, partition: int, text: str) -> None:
        value = msgspec.json.encode({"id": id, "text": text})
        self.publish(value, partition, [("traceparent", b"00-%b-01" % id.encode())])

    def delayed(self, id: str, partition: int, *, due: int = 0, size: int = 10, **past: str) -> None:
        """A record in the first level, as a worker writes it."""
        fields = {"level": "1", "due": str(due), "topic": self.input, "partition": str(partition)}
        fields |= {"timestamp": "5", **past}
        self._producer.produce(
            f"{self.base}.1s",
            msgspec.json.encode({"id": id, "text": "x" * size}),
            partition=partition,
            headers={f"retry.{name}": value for name, value in fields.items()},
            on_delivery=self._delivered,
        )

    def work(self) -> None:
        """A worker until there is nothing to do."""
        assert self.start("--exit-when-idle", "0.5", module=WORKER).wait() == 0

    def mover(self, *arguments: str) -> Worker:
        return self.start(*arguments, module=("streamer", "retry"))

    def bring_back(self) -> None:
        """A mover until nothing waits."""
        mover = self.mover("--exit-when-idle", "0.5")
        assert mover.wait() == 0, mover.log.read_text("utf-8")

    def level(self, delay: str) -> list[Message]:
        return self.reader(f"{self.base}.{delay}").all()

    def ids(self) -> Counter[str]:
        return Counter(json.loads(one.value() or b"")["id"] for one in self.reader(self.output).all())

    def returned(self) -> list[Message]:
        """What came back to the input topic."""
        return [one for one in self.reader(self.input).all() if "retry.level" in headers(one)]


@pytest.fixture
def line(kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, tmp_path: Path) -> Iterator[Delays]:
    delays = Delays(tmp_path, kafka, redis_url, make_topic, 2)
    yield delays
    delays.close()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_level_after_level_and_each_record_ends_once(line: Delays, redis_url: str, delivery: str) -> None:
    line.config["delivery"] = delivery
    for number in range(60):
        text = f"{BUSY}{number % 4} nice" if number % 2 else "nice"  # BUSY3 outlasts both levels
        line.text(f"r{number}", number % 2, text)
    line.flush()
    line.work()
    first = line.level("1s")
    assert len(first) == 30 and sum(line.ids().values()) == 30
    with redis.Redis.from_url(redis_url) as client:
        held = bytes(client.hget(line.claims, "r1") or b"")
    assert held.endswith(b"!"), "a delayed record gives its claim back"
    for message in first:
        found = headers(message)
        assert found["retry.level"] == found["retry.attempts"] == "1"
        assert int(found["retry.due"]) - int(found["retry.failed_at"]) == 1000
        assert message.timestamp()[1] >= int(found["retry.failed_at"]), "the time of writing"
    started = time.time()
    mover, worker = line.mover(), line.start(module=WORKER)
    dead = line.reader(line.dead_letters)
    wait_until(lambda: worker.well and mover.well and dead.read() >= 15, "the dead letters of the last level")
    for process in (mover, worker):
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.log.read_text("utf-8")
    assert time.time() - started >= 2.0
    assert set(line.ids().values()) == {1} and len(line.ids()) == 45
    for message in dead.messages:
        found = headers(message)
        assert (found["dlq.reason"], found["dlq.attempts"], found["retry.level"]) == ("unavailable", "3", "2")
        assert json.loads(message.value() or b"")["text"].startswith(f"{BUSY}3")
        assert found["traceparent"] == "00-" + json.loads(message.value() or b"")["id"] + "-01"
    for message in line.returned():
        found = headers(message)
        assert (
            found["retry.origin"]
            == f"{line.input}:{found['retry.origin'].split(':')[1]}:" + (found["retry.origin"].split(":")[2])
        )
        assert int(found["retry.origin"].split(":")[1]) == message.partition(), "the partition that it had"
        assert 0 <= message.timestamp()[1] - int(found["retry.due"]) < 20_000, "not before it is due"


def test_a_partition_waits_for_its_head_and_the_order_is_that_of_the_due_times(line: Delays) -> None:
    now = int(time.time() * 1000)
    for number, (partition, due) in enumerate([(0, 0), (1, 3000), (0, 1500), (1, 3500), (0, 2000)]):
        line.delayed(f"{number}", partition, due=now + due)
    line.flush()
    line.bring_back()
    returned = sorted(line.returned(), key=lambda one: one.timestamp()[1])
    assert [json.loads(one.value() or b"")["id"] for one in returned] == ["0", "2", "4", "1", "3"]
    assert all(one.timestamp()[1] >= int(headers(one)["retry.due"]) for one in returned)


KILLED = """
import os, signal, sys
from streamer import cli
from streamer.shipping import Shipper
calls, whole = 0, Shipper.{method}
def die(*args):
    global calls
    calls += 1
    if calls == 2 and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(*args)
    if calls == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Shipper.{method} = die
cli.main(["retry", "--config", {config!r}])
"""


@pytest.mark.parametrize(
    ("method", "before"),
    [("send_offsets", True), ("send_offsets", False), ("commit", True), ("commit", False)],
)
def test_killed_in_a_transaction_none_is_lost_and_none_comes_back_twice(
    line: Delays, method: str, before: bool
) -> None:
    for number in range(900):
        line.delayed(f"r{number}", number % 2)
    line.flush()
    code = KILLED.format(method=method, before=before, config=str(line.file))
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    line.bring_back()
    ids = Counter(json.loads(message.value() or b"")["id"] for message in line.returned())
    assert len(ids) == 900 and set(ids.values()) == {1}


def test_a_claim_that_a_worker_could_not_give_back_does_not_swallow_the_record(
    line: Delays, redis_url: str
) -> None:
    line.text("a", 0, f"{BUSY}1 nice")
    line.text("b", 0, "nice")
    line.flush()
    line.work()
    with redis.Redis.from_url(redis_url) as client:
        # As after a worker that died between its transaction and giving the claim back.
        generation = bytes(client.hget(line.claims, "b") or b"").rpartition(b":")[0].rpartition(b":")[0]
        assert generation
        client.hset(line.claims, "a", generation + b":0:0")
    line.bring_back()
    line.work()
    assert line.ids() == {"a": 1, "b": 1}


def test_what_the_input_topic_does_not_take_back_is_a_dead_letter_and_its_neighbours_go(line: Delays) -> None:
    for number in range(9):
        line.delayed(f"{number}", 0, size=1_900_000 if number == 4 else 10, attempts="7", offset=str(number))
    line.flush()
    limit(line, 1_000_000)
    assert len(line.level("1s")) == 9
    line.bring_back()
    assert [json.loads(m.value() or b"")["id"] for m in line.returned()] == list("01235678")
    (letter,) = line.reader(line.dead_letters).all()
    found = headers(letter)
    assert (found["dlq.reason"], found["dlq.attempts"], found["dlq.stage"]) == (
        "retry_too_large",
        "7",
        "retry",
    )
    assert (found["dlq.topic"], found["dlq.offset"], found["dlq.timestamp"]) == (line.input, "4", "5")


def limit(line: Delays, size: int) -> None:
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    admin = AdminClient({"bootstrap.servers": line.config["kafka"]["bootstrap_servers"]})
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, line.input, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(timeout=30)


def test_of_two_with_one_transactional_id_the_elder_ends_and_none_comes_back_twice(line: Delays) -> None:
    line.config["kafka"]["transactional_id"] = "the-same"
    elder = line.mover()
    wait_until(lambda: elder.said("bringing records back"), "the elder")
    younger = line.mover()
    wait_until(lambda: younger.said("bringing records back"), "the younger")
    for number in range(20):
        line.text(f"r{number}", number % 2, f"{BUSY}2 nice")
    line.flush()
    worker = line.start(module=WORKER)  # what comes back goes to the other level: each of the two gets some
    assert elder.wait() == 5
    assert "give each a kafka.transactional_id" in elder.log.read_text("utf-8")
    wait_until(lambda: worker.well and len(line.ids()) == 20, "the results")
    origins = Counter((headers(m)["retry.origin"], headers(m)["retry.level"]) for m in line.returned())
    assert len(origins) == 40 and set(origins.values()) == {1}


def test_while_redis_is_away_nothing_comes_back_and_then_all_of_it(
    line: Delays, breakable_redis: RedisServer
) -> None:
    line.config["redis"]["url"] = breakable_redis.url
    line.config["ops"] = {"port": free_port()}
    line.config["kafka"]["consumer"]["statistics.interval.ms"] = "200"
    mover = line.mover("--exit-when-idle", "5")
    wait_until(lambda: mover.well and set(readiness(line).values()) == {True}, "the mover's readiness")
    assert readiness(line).keys() == {"work", "assignment", "broker", "redis"}
    breakable_redis.suspend()
    for number in range(1500):
        line.delayed(f"r{number}", number % 2)
    line.flush()
    wait_until(lambda: mover.well and "records are due and wait" in mover.log.read_text(), "the outage")
    assert line.returned() == []
    assert readiness(line) == {"work": True, "assignment": True, "broker": True, "redis": False}
    breakable_redis.resume()
    assert mover.wait() == 0, mover.log.read_text("utf-8")
    ids = Counter(json.loads(message.value() or b"")["id"] for message in line.returned())
    assert len(ids) == 1500 and set(ids.values()) == {1}


def readiness(line: Delays) -> dict[str, bool]:
    """What /readyz says of each thing; nothing before there is an answer."""
    connection = HTTPConnection("127.0.0.1", line.config["ops"]["port"], timeout=10)
    try:
        connection.request("GET", "/readyz")
        checks = json.loads(connection.getresponse().read())["checks"]
        return {name: check["ok"] for name, check in checks.items()}
    except OSError:
        return {}
    finally:
        connection.close()
