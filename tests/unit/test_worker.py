"""Workers: a bound, and an outcome for every batch whatever the model does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic

import pytest

from streamer.errors import OutOfMemory
from streamer.ledger import Lane
from streamer.records import Batch, Classification, Encoding, Job, Outcome, Record, TopicPartition
from streamer.worker import MISSED, InlineWorker, ThreadWorker

FINE = Classification("good", 1.0, {"good": 1.0})
DEADLINE = 20.0


class Model:
    name, revision = "model", "1"

    def __init__(self, act: Callable[[Sequence[Job]], object] = lambda jobs: None) -> None:
        self.act = act
        self.threads: set[str] = set()

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        return [Encoding(1, None) for _ in texts]

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        return texts * longest

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        self.threads.add(threading.current_thread().name)
        self.act(jobs)
        return [FINE for _ in jobs]


def batch(texts: int = 2, offset: int = 0) -> Batch:
    lane = Lane(TopicPartition("t", 0))
    return Batch([Job(Record("t", 0, offset, 0, None, b"", []), lane, 0) for _ in range(texts)], texts)


def collect(worker: ThreadWorker, count: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    deadline = monotonic() + DEADLINE
    while len(outcomes) < count and monotonic() < deadline:
        outcomes += worker.collect(0.05)
    assert len(outcomes) == count
    return outcomes


def fail(error: BaseException) -> Callable[[Sequence[Job]], object]:
    def act(jobs: Sequence[Job]) -> object:
        raise error

    return act


def test_inline_does_the_work_at_once() -> None:
    worker = InlineWorker(Model())
    assert worker.room == 1 and worker.in_flight == 0
    offered = batch()
    worker.offer(offered)
    assert worker.room == 0 and worker.in_flight == 1 and worker.busy_for() == 0.0
    (outcome,) = worker.collect(10.0)
    assert outcome.batch is offered and outcome.values == [FINE, FINE] and outcome.error is None
    assert worker.collect(10.0) == [] and worker.room == 1


def test_inline_turns_errors_into_outcomes() -> None:
    error = OutOfMemory("2 texts")
    worker = InlineWorker(Model(fail(error)))
    worker.offer(batch())
    (outcome,) = worker.collect(0.0)
    assert outcome.error is error and outcome.values == []


def test_a_thread_does_the_work_and_outcomes_come_in_order() -> None:
    model = Model()
    worker = ThreadWorker(model)
    offered = [batch(offset=number) for number in range(3)]
    for one in offered:
        worker.offer(one)
    outcomes = collect(worker, 3)
    assert [outcome.batch for outcome in outcomes] == offered
    assert all(outcome.seconds >= 0 and outcome.values == [FINE, FINE] for outcome in outcomes)
    assert threading.current_thread().name not in model.threads
    worker.close()


def test_errors_in_the_thread_are_outcomes_and_the_thread_lives_on() -> None:
    error = ValueError("odd")
    model = Model(fail(error))
    worker = ThreadWorker(model)
    worker.offer(batch())
    assert collect(worker, 1)[0].error is error
    model.act = lambda jobs: None
    worker.offer(batch())
    assert collect(worker, 1)[0].error is None
    worker.close()


def test_room_is_threads_and_prefetch_less_what_is_not_collected() -> None:
    gate = threading.Event()
    worker = ThreadWorker(Model(lambda jobs: gate.wait(DEADLINE)), threads=2, prefetch=3)
    assert worker.room == 5
    for left in (4, 3, 2, 1, 0):
        worker.offer(batch())
        assert worker.room == left
    gate.set()
    collect(worker, 5)
    assert worker.room == 5 and worker.in_flight == 0
    worker.close()


def test_many_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(4, timeout=DEADLINE)
    worker = ThreadWorker(Model(lambda jobs: meeting.wait()), threads=4)
    for _ in range(4):
        worker.offer(batch())
    assert [outcome.error for outcome in collect(worker, 4)] == [None] * 4
    worker.close()


def test_collecting_does_not_wait_longer_than_told() -> None:
    gate = threading.Event()
    worker = ThreadWorker(Model(lambda jobs: gate.wait(DEADLINE)))
    worker.offer(batch())
    started = monotonic()
    assert worker.collect(0.0) == [] and worker.collect(0.02) == []
    assert monotonic() - started < 5.0
    gate.set()
    collect(worker, 1)
    worker.close()


def test_busy_for_counts_while_a_batch_is_held_and_is_zero_when_idle() -> None:
    gate, started = threading.Event(), threading.Event()

    def hold(jobs: Sequence[Job]) -> None:
        started.set()
        gate.wait(DEADLINE)

    worker = ThreadWorker(Model(hold))
    assert worker.busy_for() == 0.0
    before = monotonic()
    worker.offer(batch())
    assert started.wait(DEADLINE)
    worker.collect(0.02)
    assert 0.02 <= worker.busy_for() <= monotonic() - before
    gate.set()
    collect(worker, 1)
    assert worker.busy_for() == 0.0
    worker.close()


def test_one_thread_that_hangs_is_seen_while_the_other_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("streamer.worker.monotonic", lambda: now)
    gate, hung = threading.Event(), threading.Event()

    def hold_the_first(jobs: Sequence[Job]) -> None:
        if not hung.is_set():
            hung.set()
            gate.wait(DEADLINE)

    worker = ThreadWorker(Model(hold_the_first), threads=2)
    worker.offer(batch())
    assert hung.wait(DEADLINE)
    for _ in range(20):
        now += 0.5
        worker.offer(batch())
        collect(worker, 1)
        held = worker.busy_for()
    assert 9.0 <= held <= 10.0
    gate.set()
    collect(worker, 1)
    assert worker.busy_for() == 0.0
    worker.close()


def test_a_process_that_was_stopped_has_no_device_that_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("streamer.worker.monotonic", lambda: now)
    gate, started = threading.Event(), threading.Event()

    def hold(jobs: Sequence[Job]) -> None:
        started.set()
        gate.wait(DEADLINE)

    worker = ThreadWorker(Model(hold))
    worker.offer(batch())
    assert started.wait(DEADLINE)
    worker.busy_for()
    now += 600.0
    assert worker.busy_for() <= 2 * MISSED
    gate.set()
    collect(worker, 1)
    worker.close()


def test_closing_ends_the_threads_after_what_they_hold() -> None:
    worker = ThreadWorker(Model(), threads=2)
    worker.offer(batch())
    worker.close()
    for thread in worker._threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert len(worker.collect(0.0)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_looks_like_a_device_that_hangs() -> None:
    worker = ThreadWorker(Model(fail(BaseException("dead"))))
    worker.offer(batch())
    for thread in worker._threads:
        thread.join(DEADLINE)
    assert worker.collect(0.0) == [] and worker.in_flight == 1 and worker.busy_for() > 0
