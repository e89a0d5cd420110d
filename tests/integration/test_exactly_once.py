"""`delivery: exactly_once` with real workers that are killed and joined by others; more in `tests/faults`."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Position

from tests.conftest import MakeTopic
from tests.integration.line import Line, Worker, wait_until
from tests.servers import KafkaServer

PARTITIONS = 2


class ExactlyOnce(Line):
    """Slow enough to be hit at work. Every tenth record is bad, and some were aborted by who wrote them."""

    def __init__(self, folder: Path, kafka: KafkaServer, redis_url: str, make_topic: MakeTopic) -> None:
        super().__init__(folder, kafka, redis_url, make_topic, PARTITIONS)
        self.config |= {
            "delivery": "exactly_once",
            "fake": {"base_ms": 10.0, "per_text_us": 400.0},
            # Whom the test kills, no record has killed.
            "limits": {"max_attempts": 1000},
            # Kafka alone has to see to it that nothing comes twice.
            "deduplication": {"enabled": False},
        }
        self.good: set[str] = set()
        self.bad: set[bytes] = set()

    def worker(self, slot: str, *arguments: str, **consumer: str) -> Worker:
        kafka = self.config["kafka"]
        kafka["consumer"] |= consumer
        kafka["transactional_id"] = f"{self.input}-{slot}"
        kafka["producer"] = {"transaction.timeout.ms": "5000"}
        return self.start(*arguments)

    def fill(self, records: int) -> None:
        """In transactions, as whoever is exactly once before us would."""
        producer = Producer({**self._broker, "transactional.id": f"{self.input}-source"})
        producer.init_transactions(30)
        for start in range(0, records, 250):
            for aborted in (True, False) if start % 1000 == 0 else (False,):
                producer.begin_transaction()
                for number in range(start, min(start + 250, records)):
                    value = b"bad-%d" % number if number % 10 == 0 else self._good(number, aborted)
                    producer.produce(self.input, value, partition=number % PARTITIONS)
                assert producer.flush(30) == 0, "or else there may be nothing to abort yet"
                (producer.abort_transaction if aborted else producer.commit_transaction)(30)
        self.good = {f"id-{number}" for number in range(records) if number % 10}
        self.bad = {b"bad-%d" % number for number in range(0, records, 10)}

    @staticmethod
    def _good(number: int, aborted: bool) -> bytes:
        return msgspec.json.encode({"id": f"aborted-{number}" if aborted else f"id-{number}", "text": "nice"})

    def end(self, isolation: str) -> int:
        """Where the results end for a reader, over all partitions."""
        asking = Consumer({**self._broker, "group.id": "asking", "isolation.level": isolation})
        ends = [
            asking.get_watermark_offsets(Position(self.output, number), timeout=30)[1]
            for number in range(PARTITIONS)
        ]
        asking.close()
        return sum(ends)

    def check(self) -> None:
        """Each record once, as those see it who read read_committed; all is committed; nothing hangs."""
        ids = Counter(
            msgspec.json.decode(message.value() or b"")["id"] for message in self.reader(self.output).all()
        )
        dead = Counter(message.value() for message in self.reader(self.dead_letters).all())
        assert ids == Counter(dict.fromkeys(self.good, 1))
        assert dead == Counter(dict.fromkeys(self.bad, 1))
        assert self.committed() == self.ends()
        assert self.end("read_committed") == self.end("read_uncommitted")


@pytest.fixture
def line(kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, tmp_path: Path) -> Iterator[ExactlyOnce]:
    made = ExactlyOnce(tmp_path, kafka, redis_url, make_topic)
    yield made
    made.close()


@pytest.mark.parametrize(("seed", "claims"), [(1, False), (2, True)])
def test_a_worker_that_is_killed_again_and_again(line: ExactlyOnce, seed: int, claims: bool) -> None:
    dice = random.Random(seed)
    line.config["deduplication"] = {"enabled": claims}
    line.config["fake"] = {"base_ms": 10.0, "per_text_us": 1000.0}
    line.config["window"] = {"max_records": 128}  # what a killed worker held goes one by one
    line.fill(4000)
    # A static member gets its partitions back at once, and the same id ends the dead one's transaction.
    static = {"group.instance.id": "only"}
    watcher = line.reader(line.output)
    for _ in range(5):
        worker = line.worker("only", **static)
        seen = watcher.read()
        wait_until(lambda w=worker, s=seen: w.well and watcher.read() > s, "its first results")  # type: ignore[misc]
        sleep(dice.uniform(0.0, 0.4))  # the moment of death
        worker.signal(signal.SIGKILL)
        worker.wait()
    assert watcher.read() < len(line.good), "it was killed at work"
    assert line.worker("only", "--exit-when-idle", "0.5", **static).wait() == 0
    line.check()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_workers_that_join_and_leave(line: ExactlyOnce, protocol: str) -> None:
    line.fill(3000)
    line.config["fake"] = {"base_ms": 10.0, "per_text_us": 1500.0}
    if protocol == "consumer":
        line.config["kafka"]["consumer"] = {"group.protocol": "consumer"}
    watcher = line.reader(line.output)
    first = line.worker("first")
    wait_until(lambda: first.well and watcher.read() > 300, "the first worker's results")
    second = line.worker("second", "--exit-when-idle", "1.5")
    wait_until(lambda: second.said("partitions assigned"), "the second worker")
    at_handover = watcher.read()
    wait_until(lambda: second.well and watcher.read() > at_handover + 200, "results of both")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert watcher.read() < len(line.good), "it left while there was work"
    assert second.wait() == 0
    line.check()
