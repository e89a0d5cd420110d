"""When a window closes, and with what."""

from __future__ import annotations

from streamer.ledger import Lane
from streamer.records import Job, Record, TopicPartition
from streamer.window import Window

LANE = Lane(TopicPartition("t", 0))


def window(**limits: float) -> Window:
    chosen = {"max_records": 3, "max_bytes": 1000, "max_age": 10.0, "linger": 1.0} | limits
    return Window(**chosen)  # type: ignore[arg-type]


def job(size: int = 100, lane: Lane = LANE) -> Job:
    return Job(Record("t", 0, 0, 0, None, b"", []), lane, size)


def test_an_empty_window_is_never_ready() -> None:
    empty = window()
    assert not empty.ready(1e9, starving=True) and not empty.ready(1e9, starving=False)
    assert empty.deadline(starving=True) == float("inf")
    assert empty.room == 3 and len(empty) == 0


def test_it_is_full_at_its_number_of_records() -> None:
    filling = window()
    for left in (2, 1, 0):
        assert not filling.full
        filling.add(job(), 0.0)
        assert filling.room == left
    assert filling.full and filling.ready(0.0, starving=False)


def test_it_is_full_at_its_bytes_and_takes_no_more() -> None:
    filling = window(max_records=100)
    filling.add(job(999), 0.0)
    assert not filling.full and filling.room == 99
    filling.add(job(1), 0.0)
    assert filling.room == 0 and filling.ready(0.0, starving=False)


def test_it_closes_at_its_age_counted_from_its_first_record() -> None:
    filling = window()
    filling.add(job(), 5.0)
    filling.add(job(), 14.0)
    assert not filling.ready(14.9, starving=False)
    assert filling.ready(15.0, starving=False)


def test_when_the_device_is_idle_it_closes_after_the_linger() -> None:
    filling = window()
    filling.add(job(), 5.0)
    assert not filling.ready(5.9, starving=True)
    assert filling.ready(6.0, starving=True) and not filling.ready(6.0, starving=False)


def test_the_linger_never_outlasts_the_age() -> None:
    filling = window(max_age=0.5, linger=3.0)
    filling.add(job(), 0.0)
    assert filling.deadline(starving=True) == 0.5


def test_asking_twice_gives_the_same_deadline() -> None:
    filling = window()
    filling.add(job(), 5.0)
    assert filling.deadline(starving=False) == filling.deadline(starving=False) == 15.0


def test_closing_hands_over_in_order_and_starts_anew() -> None:
    filling = window()
    jobs = [job(), job(999)]
    for one in jobs:
        filling.add(one, 1.0)
    assert filling.close(2.0) == jobs
    assert len(filling) == 0 and filling.room == 3 and filling.close(3.0) == []
    filling.add(job(), 50.0)
    assert filling.deadline(starving=False) == 60.0, "the age starts with the next record"


def test_what_came_past_the_bound_opens_the_next_window() -> None:
    filling = window()
    jobs = [job(200) for _ in range(5)]
    for one in jobs:
        filling.add(one, 1.0)
    assert filling.close(4.0) == jobs[:3]
    assert len(filling) == 2 and filling.room == 1 and filling.deadline(starving=False) == 14.0
    filling.add(job(600), 5.0)
    assert filling.room == 0, "its bytes are those that are left"
    assert filling.close(5.0)[:2] == jobs[3:]


def test_clearing_forgets_all() -> None:
    filling = window()
    filling.add(job(999), 1.0)
    filling.clear()
    assert len(filling) == 0 and filling.room == 3 and filling.deadline(starving=True) == float("inf")


def test_jobs_of_partitions_that_are_gone_are_left_out() -> None:
    gone = Lane(TopicPartition("t", 1))
    filling = window()
    mine, other = job(), job(lane=gone)
    filling.add(other, 0.0)
    filling.add(mine, 0.0)
    gone.closed = True
    assert filling.close(1.0) == [mine]
