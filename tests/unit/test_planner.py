"""Batches within a budget, with little padding, and none forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.ledger import Lane
from streamer.planner import Plan, halve, plan
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


def lengths(batches: Iterable[Batch]) -> list[list[int]]:
    return [[job.tokens for job in batch.jobs] for batch in batches]


def test_nothing_makes_no_batch() -> None:
    assert list(plan([], budget())) == []


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
    batches = list(plan(waiting, budget(texts, tokens, cost)))
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


def drained(plan: Plan) -> list[Batch]:
    batches = []
    while batch := plan.next():
        batches.append(batch)
    return batches


def test_a_plan_finishes_a_window_before_the_next() -> None:
    plan = Plan(budget(max_texts=2))
    plan.add(jobs(3, 1, 2))
    plan.add(jobs(1, 1))
    assert plan and len(plan) == 5
    assert lengths(drained(plan)) == [[1, 2], [3], [1, 1]]
    assert not plan and plan.next() is None


def test_a_batch_is_cut_by_the_budget_of_the_moment() -> None:
    sized = budget()
    plan = Plan(sized)
    plan.add(jobs(*[10] * 20))
    assert len(plan.next().jobs) == 8  # type: ignore[union-attr]
    sized.shrink(40)  # out of memory: what waits must not fail one after the other
    assert [batch.tokens for batch in drained(plan)] == [20] * 6


def test_a_batch_says_what_size_it_was_meant_for_and_whether_that_ended_it() -> None:
    plan = Plan(budget(max_tokens=100, cost=packed))
    plan.add(jobs(40, 40, 40))
    plan.add(jobs(*[1] * 11))
    found = [(batch.tokens, batch.size, batch.filled) for batch in drained(plan)]
    assert found == [(80, 100, True), (40, 100, False), (8, 100, False), (3, 100, False)]


def test_what_comes_back_goes_first_and_as_it_is() -> None:
    plan = Plan(budget(max_texts=2))
    plan.add(jobs(1, 2, 3), alone=[Batch(jobs(9), 9)])
    first = plan.next()
    assert first is not None and lengths([first]) == [[9]]
    failed = plan.next()
    assert failed is not None and len(plan) == 1
    plan.again(halve(failed, padded))
    assert len(plan) == 3
    assert lengths(drained(plan)) == [[1], [2], [3]]


def test_jobs_of_a_partition_that_is_gone_are_left_out() -> None:
    plan, gone = Plan(budget(max_texts=2)), Lane(TopicPartition("t", 1))
    for lane in (LANE, gone, gone, LANE):
        window = jobs(5, 6)
        window[1].lane = lane
        plan.add(window)
    lost = jobs(7, 8)
    lost[0].lane = lost[1].lane = gone
    plan.again([Batch(lost, 16)])
    gone.closed = True
    batches = drained(plan)
    assert lengths(batches) == [[5, 6], [5], [5], [5, 6]]
    assert [batch.tokens for batch in batches] == [12, 5, 5, 12], "what the device will compute on"
    plan.add(lost)
    assert plan and plan.next() is None and not plan


def test_clearing_forgets_all_of_it() -> None:
    plan = Plan(budget())
    plan.add(jobs(1, 2), alone=[Batch(jobs(3), 3)])
    plan.clear()
    assert not plan and not plan.holds(1) and plan.next() is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(1, 50), max_size=30), max_size=4),
    st.integers(0, 3),
    st.integers(1, 10),
    st.integers(50, 200),
    st.sampled_from([padded, packed]),
)
def test_it_promises_no_batch_that_it_does_not_hold(
    windows: list[list[int]], again: int, texts: int, tokens: int, cost: Cost
) -> None:
    plan = Plan(budget(texts, tokens, cost))
    for window in windows:
        plan.add(jobs(*window))
    plan.again([Batch(jobs(1), 1) for _ in range(again)])
    promised = [ahead for ahead in range(6) if plan.holds(ahead)]
    held = len(drained(plan))
    assert all(ahead <= held for ahead in promised) and promised[0] == 0
    assert bool(held) == (1 in promised)
