"""Reads what the workers wrote as somebody who knows nothing of them, while they work and afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as Position

ANSWER = 5.0  # seconds for an answer of the broker, which may be away by design
PAUSE = 0.2  # seconds between two looks at what is committed

Place = tuple[int, int]  # partition and offset in the input topic


class Answer(msgspec.Struct):
    """What matters of a result."""

    id: str
    source: dict[str, int | str]


class Copy(NamedTuple):
    """One time that a record was written, and when, in seconds since the epoch."""

    at: float
    partition: int
    offset: int


class Auditor:
    """A read_committed consumer of both topics, and samples of the committed offsets (invariant I4).

    `finished` says of a place in the input whether it is accounted for by what was read so far.
    """

    def __init__(
        self, bootstrap_servers: str, *, input: str, output: str, dead: str, group: str, partitions: int
    ) -> None:
        self._input, self._output, self._dead_letters = input, output, dead
        self._partitions = range(partitions)
        broker = {"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 500, "log_level": 0}
        # They ask, for the offsets of the workers' group too, and never join it. The one that reads would
        # keep them waiting.
        self._asking = Consumer({**broker, "group.id": group, "isolation.level": "read_committed"})
        self._peeking = Consumer({**broker, "group.id": group, "isolation.level": "read_uncommitted"})
        self._consumer = Consumer(
            {
                **broker,
                "group.id": "auditor",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            }
        )
        self._topics = [Position(topic, number, 0) for topic in (output, dead) for number in self._partitions]
        self._consumer.assign(self._topics)
        self._reached: dict[tuple[str, int], int] = {}
        self._checked: dict[int, int] = defaultdict(int)
        self.results: dict[Place, list[Copy]] = defaultdict(list)
        self.dead: dict[Place, list[Copy]] = defaultdict(list)
        self.ids: dict[str, set[Place]] = defaultdict(set)
        self.reasons: dict[Place, str] = {}
        self.attempts: dict[Place, int] = {}
        self.finished: Callable[[Place], bool] = lambda place: True
        self.samples = 0
        self.latest: dict[int, int] = {}  # what was committed at the last sample
        self.violations: list[str] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="auditor", daemon=True)
        self._failure: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Read everything to the end and look once more at what is committed. Raises what went wrong."""
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the auditor hangs"
        if self._failure is not None:
            raise self._failure
        self._sample()

    def close(self) -> None:
        self._ending.set()
        self._thread.join(60)
        self._consumer.close()
        self._asking.close()
        self._peeking.close()

    def committed(self) -> dict[int, int]:
        positions = [Position(self._input, number) for number in self._partitions]
        answers = self._peeking.committed(positions, timeout=ANSWER)
        failed = [position.error for position in answers if position.error is not None]
        if failed:
            raise KafkaException(failed[0])
        return {position.partition: max(0, position.offset) for position in answers}

    def ends(self, *topics: str) -> dict[tuple[str, int], int]:
        """The offset after the last message that a read_committed reader may see."""
        return self._ends(self._asking, topics)

    @property
    def in_transactions(self) -> int:
        """How many messages nobody may see yet."""
        topics = self._output, self._dead_letters
        written, seen = self._ends(self._peeking, topics), self.ends(*topics)
        return sum(written.values()) - sum(seen.values())

    def _ends(self, consumer: Consumer, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        ends: dict[tuple[str, int], int] = {}
        for topic in topics:
            for number in self._partitions:
                answer = consumer.get_watermark_offsets(Position(topic, number), timeout=ANSWER)
                if answer is None:
                    raise TimeoutError(f"no answer about {topic}[{number}]")
                ends[topic, number] = answer[1]
        return ends

    def _work(self) -> None:
        due = 0.0
        try:
            while not self._ending.is_set():
                self._read()
                if time.monotonic() >= due:
                    # While the broker is away, by design, there is nothing to see: it is asked again.
                    with contextlib.suppress(KafkaException, TimeoutError):
                        self._sample()
                    due = time.monotonic() + PAUSE
        except Exception as error:
            self._failure = error

    def _sample(self) -> None:
        """What is committed now must be finished as of now: read up to here, then compare."""
        self.latest = committed = self.committed()
        # A transaction ends in one partition after another: what it has committed may be seen a little later.
        ends = self._ends(self._peeking, (self._output, self._dead_letters))
        deadline = time.monotonic() + 2 * ANSWER
        while any(self._reached.get(at, 0) < end for at, end in ends.items()):
            if time.monotonic() > deadline:
                raise TimeoutError("the ends of the topics were not reached")
            self._read()
        for partition, offset in committed.items():
            for open_at in range(self._checked[partition], offset):
                if not self.finished((partition, open_at)):
                    self.violations.append(f"commit {offset} of partition {partition} passes {open_at}")
            self._checked[partition] = max(offset, self._checked[partition])
        self.samples += 1

    def _read(self) -> None:
        for message in self._consumer.consume(5000, 0.02):
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None and partition is not None
            error = message.error()
            if error is None:
                self._enter(message, topic)
                self._reached[topic, partition] = (offset or 0) + 1
            elif offset is not None and offset >= 0:
                self._reached[topic, partition] = offset

    def _enter(self, message: Message, topic: str) -> None:
        if topic == self._output:
            answer = msgspec.json.decode(message.value() or b"", type=Answer)
            place = int(answer.source["partition"]), int(answer.source["offset"])
            copy = Copy(message.timestamp()[1] / 1000, message.partition() or 0, message.offset() or 0)
            self.ids[answer.id].add(place)
            self.results[place].append(copy)
            return
        headers: Any = message.headers() or []
        found = {name: value.decode() for name, value in headers if name.startswith("dlq.")}
        if "dlq.note" in found:
            return  # a replay's, and no letter
        place = int(found["dlq.partition"]), int(found["dlq.offset"])
        self.dead[place].append(
            Copy(int(found["dlq.failed_at"]) / 1000, message.partition() or 0, message.offset() or 0)
        )
        self.reasons[place] = found["dlq.reason"]
        self.attempts[place] = int(found["dlq.attempts"])
