"""The dead-letter limit: what trips it, what does not, and what it says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from streamer.errors import DeadLetterLimit
from streamer.ledger import Lane
from streamer.limits import RECENT, DeadLetterGuard, Limits
from streamer.records import Coordinate, DeadLetter, Job, Record, Release, Result, Skip, TopicPartition

LANE = Lane(TopicPartition("texts.in", 0))
RECORD = Record("texts.in", 0, 0, 0, None, b"", [])
GOOD = Result("1", "positive", 1.0, {}, "fake", "1", Coordinate("texts.in", 0, 0, 0), 0)
SKIP = Skip("duplicate")


def dead(reason: str = "infer_failed", stage: str = "infer") -> DeadLetter:
    return DeadLetter(reason, "ValueError", "it failed", stage, 1, "fake", 0)


def jobs(*settled: Result | DeadLetter | Skip) -> list[Job]:
    return [Job(RECORD, LANE, 0, settled=one) for one in settled]


def trips(guard: DeadLetterGuard, settled: Sequence[Result | DeadLetter | Skip]) -> bool:
    try:
        guard.check(jobs(*settled))
    except DeadLetterLimit:
        return True
    return False


def test_a_row_beyond_its_length_trips_it_and_a_result_ends_a_row() -> None:
    guard = DeadLetterGuard(Limits(dead_letters_in_a_row=3))
    assert not trips(guard, [dead()] * 3)
    assert not trips(guard, [GOOD])
    assert not trips(guard, [dead(), SKIP, dead(), SKIP, dead()])
    assert trips(guard, [SKIP, dead()]), "a skip is no success"


def test_a_share_of_the_newest_records_trips_it() -> None:
    guard = DeadLetterGuard(Limits(dead_letter_share=0.5))
    assert not trips(guard, [dead(), GOOD] * (RECENT // 2)), "half is the limit, not beyond it"
    assert not trips(guard, [GOOD, GOOD])
    assert not trips(guard, [GOOD] * RECENT)
    assert trips(guard, [dead(), dead(), GOOD] * RECENT)


def test_a_short_history_has_no_share() -> None:
    guard = DeadLetterGuard(Limits(dead_letter_share=0.1))
    assert not trips(guard, [dead()] * (RECENT - 1))
    assert trips(guard, [dead()])


def test_null_switches_both_off() -> None:
    assert not trips(DeadLetterGuard(Limits()), [dead()] * 5000)


def test_what_cannot_be_decoded_may_be_left_out() -> None:
    guard = DeadLetterGuard(Limits(dead_letters_in_a_row=3, dead_letters_counted="processing"))
    assert not trips(guard, [dead("invalid_json", "decode")] * 100)
    assert trips(guard, [dead()] * 4)


def test_refused_results_are_a_row_of_their_own_that_only_what_arrives_ends() -> None:
    guard = DeadLetterGuard(Limits(dead_letters_in_a_row=3))
    guard.refuse(jobs(*[dead("result_too_large")] * 2))
    assert not trips(guard, [GOOD, dead()]), "what is published may be refused as well"
    guard.refuse(jobs(dead("result_too_large")))
    guard.arrived([Release(jobs(dead(), GOOD), {}, 0)])
    guard.refuse(jobs(*[dead("result_too_large")] * 3))
    guard.arrived([Release(jobs(dead()), {}, 0)])
    with pytest.raises(DeadLetterLimit, match="4 in a row"):
        guard.refuse(jobs(dead("result_too_large")))


def test_it_names_what_it_found_the_key_and_the_way_out() -> None:
    guard = DeadLetterGuard(Limits(dead_letters_in_a_row=10))
    with pytest.raises(DeadLetterLimit) as raised:
        guard.check(jobs(*[dead("out_of_memory")] * 8, *[dead()] * 3))
    assert raised.value.exit_code == 4
    for part in ("11 in a row", "limits.dead_letters_in_a_row", "8 out_of_memory, 3 infer_failed", "null"):
        assert part in str(raised.value)


def test_against_a_model_that_looks_at_the_whole_history() -> None:
    dice = random.Random(5)
    for _ in range(50):
        share = dice.choice([0.1, 0.3, 0.5])
        guard = DeadLetterGuard(Limits(dead_letter_share=share))
        history: list[bool] = []
        while True:
            release = [dead() if dice.random() < share else GOOD for _ in range(dice.randint(1, 90))]
            expected = False
            for one in release:
                history.append(one is not GOOD)
                expected |= history[-1] and len(history) >= RECENT and sum(history[-RECENT:]) > share * RECENT
            assert trips(guard, release) == expected
            if expected or len(history) > 3000:
                break
