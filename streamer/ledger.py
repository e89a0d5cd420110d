"""What is open, what is settled, and what may be released: one lane a partition, in offset order.

The ledger is why results leave in the order in which records came (invariant 3) and why a commit never
passes an open record (invariant 2): both read the same contiguous settled prefix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from streamer.errors import FatalError
from streamer.records import Job, Record, Release, Skip, TopicPartition

# What a record costs beyond its bytes: the structs and list slots that hold it on its way.
OVERHEAD_BYTES = 800
NEVER = 1 << 63  # above every offset


class Lane:
    """One assignment of one partition. A partition that comes back gets a new lane: that is its epoch.

    Work of a lane that has closed meanwhile is dropped; the partition's new owner redoes it. What of it is
    under way to the sink by then is still written, and marked, so that the new owner need not.
    """

    __slots__ = ("claimed", "closed", "dropped", "frontier", "jobs", "next", "partition", "survived")

    def __init__(self, partition: TopicPartition, survived: int = -1) -> None:
        self.partition = partition
        self.survived = survived  # below, what is unfinished killed nobody: this process, or who left, lives
        self.jobs: deque[Job] = deque()
        self.next = -1  # the offset after the newest record read
        self.frontier = -1  # the offset after the newest record released
        self.dropped = NEVER  # the first offset that was released and then not written after all
        self.claimed = False  # whether Redis has answered to a claim for it
        self.closed = False

    def drop(self, job: Job) -> None:
        """Leave a released job to the new owner, this lane has closed: nothing from it on is marked."""
        job.settled = Skip("revoked")
        self.dropped = min(self.dropped, job.record.offset)


class Ledger:
    """The lanes of the assigned partitions, bounded in bytes.

    >>> from streamer.records import Record, Skip
    >>> ledger = Ledger(max_bytes=1 << 20)
    >>> ledger.assign([TopicPartition("texts.in", 0)])
    >>> first = ledger.open(Record("texts.in", 0, 7, 0, None, b"fine", []))
    >>> second = ledger.open(Record("texts.in", 0, 8, 0, None, b"fine", []))
    >>> second.settled = Skip("duplicate")
    >>> ledger.release().offsets  # 8 is settled, but 7 is open before it
    {TopicPartition(topic='texts.in', partition=0): 7}
    >>> first.settled = Skip("duplicate")
    >>> ledger.release().offsets
    {TopicPartition(topic='texts.in', partition=0): 9}
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.lanes: dict[TopicPartition, Lane] = {}
        self._read: dict[TopicPartition, int] = {}

    @property
    def records(self) -> int:
        """How many records are open or wait behind an open one."""
        return sum(len(lane.jobs) for lane in self.lanes.values())

    @property
    def full(self) -> bool:
        return self.bytes >= self.max_bytes

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._close(partition)
            self.lanes[partition] = Lane(partition, self._read.get(partition, -1))

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget the partitions and all that is open in them."""
        for partition in partitions:
            self._close(partition)

    def open(self, record: Record, now: float = 0.0) -> Job:
        """Enter a record that was read at `now`.

        Raises KeyError when its partition is not assigned: a bug in the source. Raises FatalError when
        offsets go back: the topic was deleted and created anew, or an unclean election cut it. Claims and the
        frontier speak of another log then; a new process begins with the new one.
        """
        lane = self.lanes[TopicPartition(record.topic, record.partition)]
        if record.offset < lane.next:
            raise FatalError(
                f"{record.topic}[{record.partition}] went back from offset {lane.next} to {record.offset}: "
                "it was created anew, or cut"
            )
        size = OVERHEAD_BYTES + len(record.value or b"") + len(record.key or b"")
        for name, value in record.headers:
            size += len(name) + len(value or b"")
        job = Job(record, lane, size, read_at=now)
        lane.jobs.append(job)
        lane.next = record.offset + 1
        self.bytes += size
        return job

    def read(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the newest record read, of the partitions that are assigned and had one."""
        lanes = [self.lanes[partition] for partition in partitions if partition in self.lanes]
        return {lane.partition: lane.next for lane in lanes if lane.next >= 0}

    def advance(self, partition: TopicPartition, offset: int) -> None:
        """Nothing lies between the newest record read and `offset` (transaction markers, compaction)."""
        lane = self.lanes.get(partition)
        if lane is not None:
            lane.next = max(lane.next, offset)

    def release(self) -> Release | None:
        """Take the contiguous settled prefix of every lane; None when nothing has moved."""
        jobs: list[Job] = []
        reach: dict[Lane, int] = {}
        size = 0
        for lane in self.lanes.values():
            waiting = lane.jobs
            while waiting and waiting[0].settled is not None:
                job = waiting.popleft()
                size += job.size
                jobs.append(job)
            frontier = waiting[0].record.offset if waiting else lane.next
            if frontier > lane.frontier:
                lane.frontier = reach[lane] = frontier
        return Release(jobs, reach, size) if jobs or reach else None

    def give_back(self, release: Release) -> None:
        """A release is written and done with: what it held is free. Until then it counts as in flight."""
        self.bytes -= release.size

    def _close(self, partition: TopicPartition) -> None:
        lane = self.lanes.pop(partition, None)
        if lane is not None:
            lane.closed = True
            self._read[partition] = max(lane.next, lane.survived)
            self.bytes -= sum(job.size for job in lane.jobs)
            lane.jobs.clear()
