"""The main promises once more, with real worker threads: only the timing differs."""

from __future__ import annotations

import threading

import pytest

from streamer.errors import DeviceError, TransientError
from streamer.worker import ThreadWorker
from tests.engine.accounts import check_accounts
from tests.engine.parts import away
from tests.engine.rig import Rig
from tests.engine.test_crashes import mixed


def threaded(rig: Rig, threads: int = 1) -> Rig:
    rig.worker = lambda scorer: ThreadWorker(scorer, threads=threads)
    rig.restart()
    return rig


@pytest.mark.parametrize("threads", [1, 4])
def test_everything_is_accounted_for_in_order(threads: int) -> None:
    rig = threaded(Rig(partitions=3), threads)
    for number in range(600):
        rig.send("good " * (1 + number % 7), f"id{number}", number % 3)
    rig.run()
    assert len(rig.ids) == 600
    check_accounts(rig)


@pytest.mark.parametrize("threads", [1, 4])
def test_bad_records_duplicates_and_tombstones_go_where_they_belong(threads: int) -> None:
    rig = threaded(mixed(type(Rig().sink)), threads)
    rig.run()
    check_accounts(rig)
    skipped = rig.engine.metrics.skipped
    assert skipped["tombstone"] == 4
    assert skipped["duplicate"] + skipped["same_window"] == 3 == skipped.total() - 4


def test_one_bad_record_is_found_by_halving() -> None:
    rig = threaded(Rig(max_records=64, max_texts=64))
    for number in range(64):
        rig.send("poison" if number == 20 else "good", str(number))
    rig.run()
    assert rig.buried() == [(0, 20)] and len(rig.results) == 63 and len(rig.scorer.calls) == 13


def test_outages_of_the_model_are_waited_for() -> None:
    rig = threaded(Rig())
    for number in range(40):
        rig.send("good", str(number))
    rig.on = away("infer:before", 5, TransientError)
    rig.run()
    assert rig.ids == [str(number) for number in range(40)] and not rig.dead_letters


def test_a_device_error_in_the_thread_stops_the_engine_and_commits_nothing() -> None:
    rig = threaded(Rig())
    for number in range(40):
        rig.send("good", str(number))
    rig.on = away("infer:before", 1, DeviceError)
    with pytest.raises(DeviceError):
        rig.run()
    rig.engine.close()
    assert rig.committed == {}


def test_no_more_batches_are_offered_than_the_worker_may_hold() -> None:
    rig = Rig(max_records=4, max_texts=2)
    gate = threading.Event()
    rig.worker = lambda scorer: ThreadWorker(scorer, threads=1, prefetch=1)
    rig.restart()

    def held(point: str) -> None:
        if point == "infer:before":
            gate.wait(30)

    rig.on = held
    for number in range(40):
        rig.send("good", str(number))
    for _ in range(30):
        rig.engine.intake()
        rig.engine.dispatch()
        assert rig.engine._worker.in_flight <= 2
    gate.set()
    rig.run()
    assert rig.ids == [str(number) for number in range(40)]
