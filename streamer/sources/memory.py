"""A partitioned log in memory and a source that reads it: for tests and for those who embed the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from streamer.protocols import Assignment
from streamer.records import Record, TopicPartition


class MemoryLog:
    """A topic. It outlives the sources that read it, as Kafka outlives its consumers."""

    def __init__(self, topic: str = "texts.in", partitions: int = 1) -> None:
        self.topic = topic
        self.records: dict[TopicPartition, list[Record]] = {
            TopicPartition(topic, number): [] for number in range(partitions)
        }
        self.committed: dict[TopicPartition, int] = {}

    def append(
        self,
        value: bytes | None,
        *,
        partition: int = 0,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
        timestamp: int = 0,
    ) -> Record:
        records = self.records[TopicPartition(self.topic, partition)]
        record = Record(self.topic, partition, len(records), timestamp, key, value, list(headers))
        records.append(record)
        return record


class MemorySource:
    """Reads a `MemoryLog` from the committed offsets on. All partitions are assigned at the first poll.

    `wait` is called with the time-out when there is nothing to read: a test passes its clock's `advance`.
    """

    def __init__(self, log: MemoryLog, *, wait: Callable[[float], None] = lambda seconds: None) -> None:
        self._log = log
        self._wait = wait
        self._assignment: Assignment | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._uncommitted: dict[TopicPartition, int] = {}
        self._events: list[tuple[str, list[TopicPartition]]] = []
        self._paused = False

    def subscribe(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.rebalance("assigned", self._log.records)

    def rebalance(self, event: str, partitions: Iterable[TopicPartition]) -> None:
        """Let the next poll tell of partitions that were `assigned`, `revoked` or `lost`."""
        self._events.append((event, list(partitions)))

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        self.flush(0)
        self._tell()
        records: list[Record] = []
        if not self._paused:
            for partition in self._positions:
                position = self._positions[partition]
                found = self._log.records[partition][position : position + max_records - len(records)]
                self._positions[partition] = position + len(found)
                records += found
        if not records:
            self._wait(timeout)
        return records

    def ends(self) -> Mapping[TopicPartition, int]:
        return {p: at for p, at in self._positions.items() if at == len(self._log.records[p])}

    def exhausted(self) -> bool:
        return len(self.ends()) == len(self._positions)

    def lag(self) -> Mapping[TopicPartition, int]:
        return {p: len(self._log.records[p]) - at for p, at in self._positions.items()}

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._uncommitted.update({p: at for p, at in offsets.items() if p in self._positions})

    def flush(self, timeout: float) -> None:
        self._log.committed.update(self._uncommitted)
        self._uncommitted = {}

    def close(self) -> None:
        self.rebalance("revoked", list(self._positions))
        self._tell()

    def _tell(self) -> None:
        assert self._assignment is not None, "subscribe comes first"
        events, self._events = self._events, []
        for event, partitions in events:
            if event == "assigned":
                self._assignment.assigned(partitions)
                self._positions.update({p: self._log.committed.get(p, 0) for p in partitions})
                continue
            if event == "revoked":
                self._assignment.revoked(partitions)
                self.flush(0)
            else:
                self._assignment.lost(partitions)
            for partition in partitions:
                self._positions.pop(partition, None)
                self._uncommitted.pop(partition, None)
