"""Who waits after a failure that passes: the batch, or the line."""

from __future__ import annotations

import pytest

from streamer.errors import TransientError
from streamer.ledger import Lane
from streamer.records import Batch, Job, Record, TopicPartition
from streamer.recovery import Recovery

AWAY = TransientError("503")
LANE = Lane(TopicPartition("t", 0))


def tried(times: int) -> Batch:
    """A batch that has failed so often."""
    return Batch([Job(Record("t", 0, 0, 0, None, b"", []), LANE, 0, attempts=times)], 1)


def test_where_others_are_answered_only_the_batch_waits() -> None:
    recovery, batch = Recovery(), tried(1)
    recovery.offered(batch)
    recovery.answered()
    assert 0.025 <= recovery.failed(batch, AWAY, now=100.0) - 100.0 <= 0.05
    assert recovery.line.ready(100.0)


def test_where_nobody_is_answered_the_line_waits_too() -> None:
    recovery, batch = Recovery(), tried(1)
    recovery.answered()
    recovery.offered(batch)
    again_at = recovery.failed(batch, AWAY, now=100.0)
    assert not recovery.line.ready(100.0) and recovery.line.failures == 1
    assert again_at >= recovery.line.until + 0.025, "the first to try is another one"
    recovery.answered()
    assert recovery.line.ready(100.0)


def test_one_batch_finds_out_whether_it_is_back() -> None:
    recovery, batch = Recovery(), tried(1)
    assert recovery.allows(0.0, in_flight=3)
    recovery.offered(batch)
    recovery.failed(batch, AWAY, now=0.0)
    later = recovery.line.until
    assert not recovery.allows(0.0, in_flight=0)
    assert recovery.allows(later, in_flight=0) and not recovery.allows(later, in_flight=1)
    recovery.answered()
    assert recovery.allows(0.0, in_flight=3)


def test_what_was_under_way_together_is_one_failure_of_the_line() -> None:
    recovery = Recovery()
    for probe in range(1, 4):
        batches = [tried(probe) for _ in range(32)]
        for batch in batches:
            recovery.offered(batch)
        for batch in batches:
            recovery.failed(batch, AWAY, now=100.0)
        assert recovery.line.failures == probe


@pytest.mark.parametrize(("tries", "step"), [(1, 0.05), (2, 0.1), (5, 0.8), (8, 5.0), (10_000, 5.0)])
def test_a_batch_waits_longer_with_each_of_its_own_tries(tries: int, step: float) -> None:
    recovery, batch = Recovery(), tried(tries)
    recovery.offered(batch)
    recovery.answered()
    assert step / 2 <= recovery.failed(batch, AWAY, now=0.0) <= step
