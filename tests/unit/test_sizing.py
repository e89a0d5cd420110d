"""The budget: the best size within what memory, latency and the configuration allow, on windows of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from streamer.ledger import Lane
from streamer.planner import plan
from streamer.records import Batch, Job, Record, TopicPartition
from streamer.sizing import FLOOR, PLATEAU, MemoryBound, TokenBudget, padded

RECORD, LANE = Record("t", 0, 0, 0, None, b"", []), Lane(TopicPartition("t", 0))
WINDOW = 512
SWEPT = [256, 512, 1024, 1448, 2048, 2896, 4096, 8192, 16_384]

Device = Callable[[Batch], float]  # seconds for a batch


def packed(texts: int, tokens: int, longest: int) -> int:
    return tokens


def budget(
    *, adaptive: bool = True, max_tokens: int = 16_384, max_latency: float = 10.0, max_texts: int = 64
) -> TokenBudget:
    return TokenBudget(
        max_texts=max_texts, max_tokens=max_tokens, max_latency=max_latency, adaptive=adaptive, cost=packed
    )


def chinese(random: Random) -> int:
    """Tokens of a review of 50 to 500 characters."""
    return min(int(random.lognormvariate(4.6, 0.6)) + 30, 500)


def english(random: Random) -> int:
    """Tokens of a sentence."""
    return random.randint(4, 50)


def mixed(random: Random) -> int:
    """Mostly so short that the number of texts ends a batch, whatever the budget."""
    return random.randint(80, 200) if random.random() < 0.2 else random.randint(3, 8)


def batches(sized: TokenBudget, lengths: Callable[[Random], int], seed: int = 1) -> Iterator[Batch]:
    random = Random(seed)
    while True:
        yield from plan([Job(RECORD, LANE, 0, tokens=lengths(random)) for _ in range(WINDOW)], sized)


def run(
    sized: TokenBudget,
    device: Device,
    *,
    count: int = 800,
    lengths: Callable[[Random], int] = chinese,
    noise: float = 0.0,
) -> float:
    """Tokens of text a second over so many batches."""
    random = Random(2)
    tokens, seconds = 0, 0.0
    for _, batch in zip(range(count), batches(sized, lengths), strict=False):
        took = device(batch) * random.lognormvariate(0.0, noise)
        sized.observe(batch, took)
        tokens, seconds = tokens + batch.tokens, seconds + took
    return tokens / seconds


def transformer(overhead: float, rate: float, context: float, cache: float = 1e12) -> Device:
    """A batch's fixed cost, its linear layers, which slow down beyond the cache, and its attention."""

    def seconds(batch: Batch) -> float:
        linear = batch.tokens / rate * (1 + max(0.0, batch.tokens / cache - 1))
        attention = sum(job.tokens**2 for job in batch.jobs) / context / rate
        return overhead + linear + attention

    return seconds


DEVICES = {
    "GPU": transformer(0.0025, 1_600_000, 4000),
    "CPU": transformer(0.005, 110_000, 1000),
    "CPU with a small cache": transformer(0.002, 5_000, 2000, cache=1500),
}


@pytest.mark.parametrize("lengths", [chinese, english, mixed])
@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("device", DEVICES)
def test_it_is_as_fast_as_the_best_fixed_budget_less_5_percent(
    device: str, noise: float, lengths: Callable[[Random], int]
) -> None:
    """From a cold start: after a first look around, on windows that the planner sorts by length."""
    cost = DEVICES[device]
    swept = {size: run(budget(adaptive=False, max_tokens=size), cost, lengths=lengths) for size in SWEPT}
    sized = budget()
    run(sized, cost, lengths=lengths, noise=noise, count=300)
    found = run(sized, cost, lengths=lengths, noise=noise, count=2000)
    assert found >= 0.95 * max(swept.values()), (sized.tokens, swept)


@pytest.mark.parametrize("milliseconds", [8, 7, 4])
def test_the_latency_target_caps_it(milliseconds: int) -> None:
    sized = budget(max_latency=milliseconds / 1000)
    run(sized, lambda batch: 0.0025 + batch.tokens / 1_600_000)
    allowed = (milliseconds / 1000 - 0.0025) * 1_600_000
    assert 0.8 * allowed < sized.tokens <= sized.ceiling < 1.05 * allowed


def test_the_configured_maximum_caps_it() -> None:
    sized = budget(max_tokens=6_000)
    run(sized, DEVICES["GPU"])
    assert sized.tokens == 6_000
    held = [batch.tokens for _, batch in zip(range(200), batches(sized, chinese), strict=False)]
    assert 5_000 < max(held) <= 6_000


def test_the_number_of_texts_caps_it() -> None:
    sized = budget(max_texts=20)
    run(sized, DEVICES["GPU"])
    assert all(len(batch.jobs) <= 20 for _, batch in zip(range(200), batches(sized, english), strict=False))


def test_a_target_that_no_batch_can_meet_does_not_end_in_batches_of_a_word() -> None:
    sized = budget(max_latency=0.010)
    run(sized, lambda batch: 0.050 + batch.tokens / 100_000)
    assert sized.tokens == FLOOR


def test_a_fixed_budget_stays() -> None:
    sized = budget(adaptive=False, max_tokens=8192)
    for _ in range(5):
        run(sized, DEVICES["CPU"], count=100, noise=0.1)
        assert (sized.next(), sized.tokens, sized.ceiling) == (8192, 8192, 8192)


def test_padding_is_no_work_done() -> None:
    """A budget that only buys padding is not faster, though the device computes more tokens a second."""
    sized = TokenBudget(max_texts=512, max_tokens=65_536, max_latency=10.0, adaptive=True, cost=padded)
    run(sized, lambda batch: batch.tokens / 1e6, lengths=lambda random: random.choice([10, 200]), count=3000)
    assert sized.tokens <= 2 * FLOOR


@pytest.mark.parametrize("milliseconds", [100, 1000])
@pytest.mark.parametrize(("tokens", "seconds"), [(2048, 5.0), (20, 0.03), (20, 0.007)])
def test_a_slow_first_call_or_a_single_text_does_not_end_the_slow_start(
    tokens: int, seconds: float, milliseconds: int
) -> None:
    """Their rate bounds the latency of the next batches; the search waits for the bound to rise."""
    sized = budget(max_latency=milliseconds / 1000, max_texts=512)
    device = DEVICES["GPU"]
    sized.observe(Batch([Job(RECORD, LANE, 0, tokens=tokens)], tokens, sized.next(), tokens == 2048), seconds)
    run(sized, device, count=40)
    assert sized.tokens >= 16_384


@pytest.mark.parametrize("texts", [50, 70, 150])
def test_what_a_smaller_size_leaves_of_a_window_is_counted_too(texts: int) -> None:
    """Windows of one to three batches. The longest texts, which cost the most a token, are what is left."""

    def rate(sized: TokenBudget, windows: int) -> float:
        random = Random(1)
        tokens, seconds = 0, 0.0
        for _ in range(windows):
            for batch in plan([Job(RECORD, LANE, 0, tokens=chinese(random)) for _ in range(texts)], sized):
                took = DEVICES["CPU"](batch)
                sized.observe(batch, took)
                tokens, seconds = tokens + batch.tokens, seconds + took
        return tokens / seconds

    sized = budget(max_texts=256)
    rate(sized, 500)
    swept = [rate(budget(adaptive=False, max_tokens=size, max_texts=256), 300) for size in SWEPT]
    assert rate(sized, 300) >= 0.95 * max(swept)


def test_a_comparison_ends_where_every_window_is_one_round_of_turns() -> None:
    """Of 512 texts there are four batches: the two that tell nothing are always those of the same size."""
    sized = budget(max_texts=128)
    device = transformer(0.004, 20_000, 1e12)

    def lengths(random: Random) -> int:
        return random.randint(15, 45)

    run(sized, device, lengths=lengths, count=3000)
    offered = []
    for _, batch in zip(range(400), batches(sized, lengths), strict=False):
        offered.append(batch.size)
        sized.observe(batch, device(batch))
    assert offered.count(sized.tokens) >= 350, "it rests"


@pytest.mark.parametrize("texts", [300, 512])
def test_windows_that_begin_with_many_short_batches_do_not_end_every_comparison(texts: int) -> None:
    """A tenth are long; the batches before those are the same with any size. The caches hold 2,500 tokens."""
    sized, random = budget(max_texts=32), Random(1)
    offered = []
    for _ in range(400):
        lengths = [
            random.randint(300, 500) if random.random() < 0.1 else random.randint(5, 25) for _ in range(texts)
        ]
        for batch in plan([Job(RECORD, LANE, 0, tokens=length) for length in lengths], sized):
            offered.append(batch.size)
            took = 0.003 + batch.tokens / 80_000 * (2 if batch.tokens > 2500 else 1)
            sized.observe(batch, took * random.lognormvariate(0.0, 0.03))
    assert sum(size > 2048 for size in offered[-1000:]) <= 100


@pytest.mark.parametrize(("texts", "max_texts"), [(150, 256), (512, 128)], ids=["window", "number of texts"])
def test_a_size_that_nothing_fills_is_not_kept_because_it_was_quick(texts: int, max_texts: int) -> None:
    """The caches hold 2,500 tokens; neither windows of 150 texts nor batches of 128 fill 4,096."""
    sized = budget(max_texts=max_texts)
    random = Random(1)
    for _ in range(300):
        lengths = [random.randint(15, 31) for _ in range(texts)]
        for batch in plan([Job(RECORD, LANE, 0, tokens=length) for length in lengths], sized):
            sized.observe(batch, batch.tokens / 110_000 * (1.25 if batch.tokens > 2500 else 1.0))
    assert sized.tokens <= 2048


def test_the_ends_of_windows_teach_nothing_about_sizes() -> None:
    sized = budget()
    before = sized.tokens
    for _ in range(300):  # low load: never enough texts to fill a batch
        (batch,) = plan([Job(RECORD, LANE, 0, tokens=30) for _ in range(4)], sized)
        assert not batch.filled
        sized.observe(batch, 0.01)
    assert sized.tokens == before


def test_a_size_that_the_number_of_texts_ends_is_learned_at_the_end_of_a_window_too() -> None:
    """Of 512 sentences, there are two batches: the 256 shortest, and the rest."""
    sized = budget(max_texts=256)
    device = transformer(0.01, 80_000, 1e12)
    run(sized, device, lengths=lambda random: random.randint(4, 40), noise=0.02, count=200)
    assert sized.tokens >= 8192


@pytest.mark.parametrize("adaptive", [True, False])
def test_out_of_memory_halves_it_and_clean_batches_bring_it_back(adaptive: bool) -> None:
    sized = budget(adaptive=adaptive)
    run(sized, DEVICES["GPU"])
    assert sized.tokens == 16_384
    sized.shrink(16_000)
    assert sized.tokens == sized.ceiling == 8_000
    sized.shrink(8_000)
    assert sized.ceiling == 4_000
    run(sized, DEVICES["GPU"], count=10)
    assert sized.ceiling < 4_500
    run(sized, DEVICES["GPU"], count=4 * PLATEAU)
    assert sized.tokens == 16_384


@pytest.mark.parametrize("fits", [700, 3_000, 9_999])
@pytest.mark.parametrize("seed", range(5))
def test_a_device_with_little_memory_is_used_well_and_asked_rarely(fits: int, seed: int) -> None:
    """What fits wavers, as other programs take their share. A batch that does not fit is no work done."""
    random, sized = Random(seed), budget()
    refused, done = 0, 0
    for _, batch in zip(range(6000), batches(sized, english, seed), strict=False):
        if batch.tokens > fits * random.uniform(0.95, 1.0):
            sized.shrink(batch.tokens)
            refused += 1
        else:
            sized.observe(batch, 0.05 + batch.tokens / 1e6)
            done += batch.tokens
    most = min(fits, 64 * 27)  # what 64 texts hold on average
    assert refused <= 6000 * 0.01 + 10
    assert done >= 0.75 * 6000 * most * 0.9


def test_memory_is_not_known_until_it_was_too_little() -> None:
    memory = MemoryBound()
    for _ in range(1000):
        memory.held()
    assert memory.tokens == float("inf")


def test_the_bound_rests_below_what_failed_and_then_tries_more() -> None:
    memory = MemoryBound()
    memory.failed(10_000)
    seen = [memory.tokens]
    for _ in range(4 * PLATEAU):
        memory.held()
        seen.append(memory.tokens)
    assert seen == sorted(seen) and seen[0] == 5_000
    assert seen[PLATEAU] == pytest.approx(9_000)
    resting = sum(8_500 < tokens < 10_000 for tokens in seen)
    assert resting > PLATEAU and seen[-1] > 15_000


def test_a_failure_of_what_is_not_offered_any_more_changes_nothing() -> None:
    """Batches of the old size that were under way, and single texts that are longer than the budget."""
    sized = budget(adaptive=False, max_tokens=1000)
    sized.shrink(100)
    sized.shrink(900)
    assert sized.tokens == 50
    for _ in range(20):
        sized.shrink(1)
    assert sized.tokens == 1
