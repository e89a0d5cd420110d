"""Deadlines that move out."""

from __future__ import annotations

from random import Random

from streamer.backoff import Backoff


def test_it_is_ready_until_something_fails_and_again_after_the_wait() -> None:
    backoff = Backoff(random=Random(1))
    assert backoff.ready(0.0)
    wait = backoff.fail(100.0)
    assert not backoff.ready(100.0) and not backoff.ready(100.0 + wait * 0.99)
    assert backoff.ready(100.0 + wait)


def test_waits_double_up_to_the_maximum_and_keep_at_least_half_of_the_step() -> None:
    backoff = Backoff(initial=0.1, maximum=2.0, random=Random(2))
    for failure in range(200):
        step = min(2.0, 0.1 * 2.0 ** min(failure, 30))
        assert step / 2 <= backoff.fail(0.0) <= step
    assert backoff.failures == 200


def test_two_workers_do_not_come_back_together() -> None:
    waits = {Backoff(initial=1.0, random=Random(seed)).fail(0.0) for seed in range(20)}
    assert len(waits) == 20


def test_success_starts_it_anew() -> None:
    backoff = Backoff(initial=0.1, maximum=10.0, random=Random(3))
    for _ in range(6):
        backoff.fail(0.0)
    backoff.succeed()
    assert backoff.ready(0.0) and backoff.failures == 0
    assert backoff.fail(0.0) <= 0.1
