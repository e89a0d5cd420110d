"""The dead-letter limit: what trips it, what does not, and what it says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from streamer.errors import DeadLetterLimit, TransientError
from streamer.ledger import Lane
from streamer.limits import RECENT, DeadLetterGuard, Limits
from streamer.records import Coordinate, DeadLetter, Job, Record, Release, Result, Skip, TopicPartition
from streamer.state.memory import MemoryDeadLetters

LANE = Lane(TopicPartition("texts.in", 0))
RECORD = Record("texts.in", 0, 0, 0, None, b"", [])
GOOD = Result("1", "positive", 1.0, {}, "fake", "1", Coordinate("texts.in", 0, 0, 0), 0)
SKIP = Skip("duplicate")


def dead(reason: str = "infer_failed", stage: str = "infer") -> DeadLetter:
    return DeadLetter(reason, "ValueError", "it failed", stage, 1, "fake", 0)


def jobs(*settled: Result | DeadLetter | Skip) -> list[Job]:
    return [Job(RECORD, LANE, 0, settled=one) for one in settled]


def guarded(limits: Limits, memory: MemoryDeadLetters | None = None) -> DeadLetterGuard:
    return DeadLetterGuard(limits, MemoryDeadLetters() if memory is None else memory)


def trips(guard: DeadLetterGuard, settled: Sequence[Result | DeadLetter | Skip]) -> bool:
    try:
        guard.check(jobs(*settled))
    except DeadLetterLimit:
        return True
    return False


def test_a_row_beyond_its_length_trips_it_and_a_result_ends_a_row() -> None:
    guard = guarded(Limits(dead_letters_in_a_row=3))
    assert not trips(guard, [dead()] * 3)
    assert not trips(guard, [GOOD])
    assert not trips(guard, [dead(), SKIP, dead(), SKIP, dead()])
    assert trips(guard, [SKIP, dead()]), "a skip is no success"


def test_a_share_of_the_newest_records_trips_it() -> None:
    guard = guarded(Limits(dead_letter_share=0.5))
    assert not trips(guard, [dead(), GOOD] * (RECENT // 2)), "half is the limit, not beyond it"
    assert not trips(guard, [GOOD, GOOD])
    assert not trips(guard, [GOOD] * RECENT)
    assert trips(guard, [dead(), dead(), GOOD] * RECENT)


def test_a_short_history_has_no_share() -> None:
    guard = guarded(Limits(dead_letter_share=0.1))
    assert not trips(guard, [dead()] * (RECENT - 1))
    assert trips(guard, [dead()])


def test_null_switches_both_off() -> None:
    assert not trips(guarded(Limits()), [dead()] * 5000)


def test_what_cannot_be_decoded_may_be_left_out() -> None:
    guard = guarded(Limits(dead_letters_in_a_row=3, dead_letters_counted="processing"))
    assert not trips(guard, [dead("invalid_json", "decode")] * 100)
    assert trips(guard, [dead()] * 4)


def test_refused_results_are_a_row_of_their_own_that_only_what_arrives_ends() -> None:
    guard = guarded(Limits(dead_letters_in_a_row=3))
    guard.refuse(jobs(*[dead("result_too_large")] * 2))
    assert not trips(guard, [GOOD, dead()]), "what is published may be refused as well"
    guard.refuse(jobs(dead("result_too_large")))
    guard.arrived([Release(jobs(dead(), GOOD), {}, 0)])
    guard.refuse(jobs(*[dead("result_too_large")] * 3))
    guard.arrived([Release(jobs(dead()), {}, 0)])
    with pytest.raises(DeadLetterLimit, match="4 in a row"):
        guard.refuse(jobs(dead("result_too_large")))


def test_it_names_what_it_found_the_key_and_the_way_out() -> None:
    guard = guarded(Limits(dead_letters_in_a_row=10))
    with pytest.raises(DeadLetterLimit) as raised:
        guard.check(jobs(*[dead("out_of_memory")] * 8, *[dead()] * 3))
    assert raised.value.exit_code == 4
    for part in ("11 in a row", "limits.dead_letters_in_a_row", "8 out_of_memory, 3 infer_failed", "null"):
        assert part in str(raised.value)


def test_against_a_model_that_looks_at_the_whole_history() -> None:
    dice = random.Random(5)
    for _ in range(50):
        share = dice.choice([0.1, 0.3, 0.5])
        guard = guarded(Limits(dead_letter_share=share))
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


def let_through(limits: Limits, memory: MemoryDeadLetters, records: Sequence[Result | DeadLetter]) -> int:
    """How many of them a run publishes, one at a time, before it ends."""
    guard = guarded(limits, memory)
    return next((n for n, one in enumerate(records) if trips(guard, [one])), len(records))


def test_each_start_after_an_end_lets_half_as_many_through_and_a_few_at_last() -> None:
    memory, row = MemoryDeadLetters(), Limits(dead_letters_in_a_row=100)
    assert [let_through(row, memory, [dead()] * 200) for _ in range(6)] == [100, 50, 25, 12, 10, 10]
    memory, short = MemoryDeadLetters(), Limits(dead_letters_in_a_row=4)
    assert [let_through(short, memory, [dead()] * 50) for _ in range(3)] == [4, 4, 4]
    memory, share = MemoryDeadLetters(), Limits(dead_letter_share=0.5)
    assert [let_through(share, memory, [dead(), dead(), GOOD] * 500) for _ in range(3)] == [199, 99, 49]
    for _ in range(100):
        let_through(share, memory, [dead()] * 500)
    assert let_through(share, memory, [dead(), GOOD] * 500) == 1000, "half is not more than half"


def test_other_limits_start_anew() -> None:
    memory = MemoryDeadLetters()
    assert let_through(Limits(dead_letters_in_a_row=20), memory, [dead()] * 50) == 20
    assert let_through(Limits(dead_letters_in_a_row=40), memory, [dead()] * 50) == 40


def test_a_result_that_arrives_ends_the_strictness_of_rows_and_many_records_the_memory() -> None:
    memory, limits = MemoryDeadLetters(), Limits(dead_letters_in_a_row=40, dead_letter_share=0.9)
    assert let_through(limits, memory, [dead()] * 50) == 40
    guard = guarded(limits, memory)
    assert not trips(guard, [GOOD])
    guard.arrived([Release(jobs(GOOD), {}, 0)])
    assert not trips(guard, [dead()] * 40)
    assert let_through(limits, memory, [dead()] * 50) == 20, "one result is no reason to forget"
    assert not trips(guard, [GOOD] * RECENT)
    guard.arrived([Release(jobs(GOOD), {}, 0)])
    assert let_through(limits, memory, [dead()] * 50) == 40


def test_a_memory_that_is_away_makes_it_forget_and_nothing_else() -> None:
    class Away(MemoryDeadLetters):
        def stops(self, limits: str) -> int:
            raise TransientError("away")

        def stop(self, limits: str) -> None:
            raise TransientError("away")

    memory = Away()
    limits = Limits(dead_letters_in_a_row=8)
    assert [let_through(limits, memory, [dead()] * 50) for _ in range(3)] == [8, 8, 8]
