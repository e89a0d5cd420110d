"""Batches within a budget, with little padding, and none forgotten."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.ledger import Lane
from streamer.planner import halve, plan
from streamer.records import Batch, Job, Record, TopicPartition
from streamer.sizing import Cost, TokenBudget, padded

LANE = Lane(TopicPartition("t", 0))


def jobs(*lengths: int) -> list[Job]:
    return [
        Job(Record("t", 0, at, 0, None, b"", []), LANE, 0, tokens=tokens) for at, tokens in enumerate(lengths)
    ]


def budget(max_texts: int = 8, max_tokens: int = 100, cost: Cost = padded) -> TokenBudget:
    return TokenBudget(max_texts=max_texts, max_tokens=max_tokens, max_latency=1.0, adaptive=False, cost=cost)


def packed(texts: int, tokens: int, longest: int) -> int:
    return tokens


def lengths(batches: list[Batch]) -> list[list[int]]:
    return [[job.tokens for job in batch.jobs] for batch in batches]


def test_nothing_makes_no_batch() -> None:
    assert plan([], budget()) == []


def test_like_lengths_go_together() -> None:
    batches = plan(jobs(50, 2, 49, 3), budget(max_texts=2))
    assert lengths(batches) == [[2, 3], [49, 50]]


def test_tokens_count_the_padding() -> None:
    (batch,) = plan(jobs(10, 20), budget())
    assert batch.tokens == 40


def test_without_padding_a_batch_costs_its_own_tokens() -> None:
    (batch,) = plan(jobs(1, 1, 48, 50), budget(cost=packed))
    assert batch.tokens == 100, "padded, it would cost 200 and be two"
    assert lengths(plan(jobs(1, 1, 49, 50), budget(cost=packed))) == [[1, 1, 49], [50]]


def test_a_budget_is_met_exactly_and_not_passed() -> None:
    assert lengths(plan(jobs(25, 25, 25, 25, 25), budget(max_tokens=100))) == [[25, 25, 25, 25], [25]]
    assert lengths(plan(jobs(1, 1, 34), budget(max_tokens=100))) == [[1, 1], [34]]
    assert lengths(plan(jobs(1, 1, 33), budget(max_tokens=100))) == [[1, 1, 33]]


def test_a_text_beyond_the_budget_gets_a_batch_of_its_own() -> None:
    assert lengths(plan(jobs(500, 3, 600), budget())) == [[3], [500], [600]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 150), max_size=60),
    st.integers(1, 10),
    st.integers(1, 200),
    st.sampled_from([padded, packed]),
)
def test_every_job_is_in_one_batch_within_the_budget(
    sizes: list[int], texts: int, tokens: int, cost: Cost
) -> None:
    waiting = jobs(*sizes)
    batches = plan(waiting, budget(texts, tokens, cost))
    planned = [id(job) for batch in batches for job in batch.jobs]
    assert sorted(planned) == sorted(map(id, waiting))
    for batch in batches:
        assert 1 <= len(batch.jobs) <= texts
        held = [job.tokens for job in batch.jobs]
        assert batch.tokens == cost(len(held), sum(held), max(held))
        assert batch.tokens <= tokens or len(batch.jobs) == 1


def test_halves_hold_all_of_it() -> None:
    batch = Batch(jobs(1, 2, 3, 4, 5), 25)
    left, right = halve(batch, padded)
    assert lengths([left, right]) == [[1, 2], [3, 4, 5]]
    assert (left.tokens, right.tokens) == (4, 15)
    assert [half.tokens for half in halve(batch, packed)] == [3, 12]
    assert lengths(list(halve(Batch(jobs(7, 9), 18), padded))) == [[7], [9]]
