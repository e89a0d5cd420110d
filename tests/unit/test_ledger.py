"""Released in order, never past what is open; bytes that come back."""

from __future__ import annotations

import doctest
from random import Random

import pytest

import streamer.ledger
from streamer.errors import FatalError
from streamer.ledger import OVERHEAD_BYTES, Ledger
from streamer.records import Job, Record, Skip, TopicPartition

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


def record(offset: int, partition: int = 0, value: bytes | None = b"four") -> Record:
    return Record("t", partition, offset, 0, None, value, [])


def ledger(*partitions: TopicPartition) -> Ledger:
    made = Ledger(max_bytes=10_000)
    made.assign(partitions or [FIRST])
    return made


def settle(*jobs: Job) -> None:
    for job in jobs:
        job.settled = Skip("test")


def test_the_example_in_its_docstring_is_true() -> None:
    done = doctest.testmod(streamer.ledger)
    assert done.attempted > 3 and done.failed == 0


def test_nothing_is_released_before_it_is_settled() -> None:
    books = ledger()
    first, second, third = (books.open(record(offset)) for offset in (5, 6, 7))
    settle(second, third)
    release = books.release()
    assert release is not None and release.jobs == [] and release.offsets == {FIRST: 5}
    settle(first)
    release = books.release()
    assert release is not None
    assert release.jobs == [first, second, third] and release.offsets == {FIRST: 8}
    assert books.release() is None


def test_an_open_record_holds_only_its_own_partition() -> None:
    books = ledger(FIRST, SECOND)
    books.open(record(0))
    other = books.open(record(9, partition=1))
    settle(other)
    release = books.release()
    assert release is not None and release.jobs == [other] and release.offsets[SECOND] == 10
    assert release.offsets.get(FIRST, 0) == 0


def test_gaps_are_passed_but_no_open_record() -> None:
    books = ledger()
    first, second = books.open(record(10)), books.open(record(20))
    settle(first)
    release = books.release()
    assert release is not None and release.offsets == {FIRST: 20}, "11 to 19 do not exist"
    books.advance(FIRST, 35)
    assert books.release() is None, "20 is open"
    settle(second)
    release = books.release()
    assert release is not None and release.offsets == {FIRST: 35}


def test_the_end_of_a_partition_without_records_moves_its_offset() -> None:
    books = ledger()
    books.advance(FIRST, 12)
    release = books.release()
    assert release is not None and release.jobs == [] and release.offsets == {FIRST: 12}
    books.advance(FIRST, 3)
    assert books.release() is None, "never back"
    books.advance(SECOND, 7)  # not assigned
    assert books.release() is None


def test_a_record_of_a_partition_that_is_not_assigned_is_a_bug_of_the_source() -> None:
    with pytest.raises(KeyError):
        ledger().open(record(0, partition=1))


def test_bytes_are_those_of_key_value_and_headers_and_come_back_in_the_end() -> None:
    books = ledger()
    job = books.open(Record("t", 0, 0, 0, b"key", b"value", [("name", b"12345"), ("empty", None)]))
    assert job.size == books.bytes == OVERHEAD_BYTES + 3 + 5 + 4 + 5 + 5
    tombstone = books.open(record(1, value=None))
    assert tombstone.size == OVERHEAD_BYTES
    settle(job, tombstone)
    release = books.release()
    assert release is not None
    assert books.bytes == release.size == job.size + tombstone.size, "until it is written it is in flight"
    books.give_back(release)
    assert books.bytes == 0


def test_it_is_full_at_its_bytes() -> None:
    books = Ledger(max_bytes=2 * OVERHEAD_BYTES)
    books.assign([FIRST])
    books.open(record(0, value=None))
    assert not books.full
    books.open(record(1, value=None))
    assert books.full


def test_a_partition_that_goes_takes_its_jobs_along() -> None:
    books = ledger(FIRST, SECOND)
    gone, kept = books.open(record(0)), books.open(record(0, partition=1))
    books.revoke([FIRST, TopicPartition("t", 7)])
    assert gone.lane.closed and not kept.lane.closed
    assert books.bytes == kept.size and books.records == 1
    settle(gone)
    release = books.release()
    assert release is None or FIRST not in release.offsets


def test_a_partition_that_comes_back_starts_anew() -> None:
    books = ledger()
    old = books.open(record(5))
    books.revoke([FIRST])
    books.assign([FIRST])
    new = books.open(record(5))
    settle(old)
    release = books.release()
    assert release is not None and release.jobs == [] and release.offsets == {FIRST: 5}
    settle(new)
    release = books.release()
    assert release is not None and release.jobs == [new] and release.offsets == {FIRST: 6}


def test_assigning_twice_closes_the_first() -> None:
    books = ledger()
    old = books.open(record(5))
    books.assign([FIRST])
    assert old.lane.closed and books.bytes == 0


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_order_records_settle_they_leave_in_theirs(seed: int) -> None:
    random = Random(seed)
    books = ledger(FIRST, SECOND)
    waiting: list[Job] = []
    offsets = {0: 0, 1: 0}
    released: dict[int, list[int]] = {0: [], 1: []}
    for _ in range(600):
        if random.random() < 0.5:
            partition = random.randrange(2)
            offsets[partition] += random.choice([1, 1, 1, 4])
            waiting.append(books.open(record(offsets[partition], partition)))
        elif waiting:
            settle(waiting.pop(random.randrange(len(waiting))))
        if release := books.release():
            for job in release.jobs:
                released[job.record.partition].append(job.record.offset)
            still = {job.record.partition: job.record.offset for job in reversed(waiting)}
            for (_, number), offset in release.offsets.items():
                assert offset <= still.get(number, offset)
            books.give_back(release)
    settle(*waiting)
    if release := books.release():
        for job in release.jobs:
            released[job.record.partition].append(job.record.offset)
        books.give_back(release)
    assert all(offsets == sorted(offsets) for offsets in released.values())
    assert sum(map(len, released.values())) > 200 and books.bytes == 0 and books.records == 0


def test_offsets_that_go_back_end_it() -> None:
    """The topic is another one: what was settled of the old one must not pass for the new one's."""
    books = ledger()
    books.open(record(7))
    with pytest.raises(FatalError, match=r"t\[0\] went back from offset 8 to 0"):
        books.open(record(0))
