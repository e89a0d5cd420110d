"""The budget against a simulated device: `t = t0 + tokens / R`, with noise."""

from __future__ import annotations

from random import Random

import pytest

from streamer.sizing import FLOOR, KNEE, TokenBudget


def budget(*, adaptive: bool = True, max_tokens: int = 1_000_000, max_latency: float = 10.0) -> TokenBudget:
    return TokenBudget(max_texts=10_000, max_tokens=max_tokens, max_latency=max_latency, adaptive=adaptive)


def run(
    sized: TokenBudget,
    overhead: float,
    rate: float,
    *,
    batches: int = 600,
    noise: float = 0.0,
    seed: int = 1,
    fill: float = 0.4,
) -> list[int]:
    """Offer batches of `fill` to 1 times the budget, as windows and lengths happen to fall."""
    random = Random(seed)
    sizes = []
    for _ in range(batches):
        tokens = max(1, int(sized.tokens * random.uniform(fill, 1.0)))
        sized.observe(tokens, (overhead + tokens / rate) * random.lognormvariate(0.0, noise))
        sizes.append(sized.tokens)
    return sizes


def knee(overhead: float, rate: float) -> float:
    return KNEE / (1 - KNEE) * overhead * rate


@pytest.mark.parametrize(
    ("overhead", "rate"),
    [(0.0025, 1_600_000), (0.004, 20_000), (0.001, 500_000), (0.030, 300_000)],
    ids=["H200", "CPU", "small GPU", "remote"],
)
def test_it_finds_the_knee_of_a_device_within_5_percent(overhead: float, rate: float) -> None:
    sizes = run(budget(), overhead, rate)
    assert sizes[-1] == pytest.approx(knee(overhead, rate), rel=0.05)
    assert sizes[60] == pytest.approx(knee(overhead, rate), rel=0.05), "within 60 batches"


@pytest.mark.parametrize("seed", range(10))
def test_noise_does_not_lead_it_astray(seed: int) -> None:
    settled = sorted(run(budget(), 0.0025, 1_600_000, noise=0.005, seed=seed)[200:])
    assert settled[len(settled) // 2] == pytest.approx(knee(0.0025, 1_600_000), rel=0.05)


@pytest.mark.parametrize("seed", range(10))
def test_much_noise_costs_little_of_the_rate(seed: int) -> None:
    for tokens in run(budget(), 0.0025, 1_600_000, noise=0.03, seed=seed)[100:]:
        assert 0.90 < tokens / (tokens + 0.0025 * 1_600_000) < 0.98, "the share of the best rate"


def test_it_follows_a_device_that_slows_down() -> None:
    sized = budget()
    run(sized, 0.002, 1_000_000)
    assert run(sized, 0.002, 250_000)[-1] == pytest.approx(knee(0.002, 250_000), rel=0.05)


def test_batches_of_one_size_teach_nothing_and_change_nothing() -> None:
    sized = budget()
    before = sized.tokens
    for _ in range(300):
        sized.observe(1000, 0.01)
    assert sized.fit() is None and sized.tokens == before


def test_the_fit_is_the_device() -> None:
    sized = budget()
    run(sized, 0.003, 400_000)
    fitted = sized.fit()
    assert fitted is not None
    assert fitted[0] == pytest.approx(0.003, rel=0.01) and fitted[1] == pytest.approx(400_000, rel=0.01)


def test_the_latency_target_caps_it() -> None:
    sized = budget(max_latency=0.010)
    run(sized, 0.0025, 1_600_000)
    assert sized.tokens == pytest.approx((0.010 - 0.0025) * 1_600_000, rel=0.05)


def test_the_configured_maximum_caps_it() -> None:
    sized = budget(max_tokens=10_000)
    assert max(run(sized, 0.0025, 1_600_000)) == 10_000


@pytest.mark.parametrize(("overhead", "noise"), [(0.0, 0.0), (1e-7, 0.3)])
def test_a_device_without_overhead_does_not_end_in_batches_of_a_word(overhead: float, noise: float) -> None:
    """Such a fit is mostly noise, and what the engine does for each batch is not in it."""
    assert min(run(budget(), overhead, 5e6, noise=noise)) >= FLOOR


def test_a_target_that_no_batch_can_meet_does_not_end_in_batches_of_a_word() -> None:
    assert min(run(budget(max_latency=0.010), 0.050, 100_000)) >= FLOOR


def test_a_fixed_budget_stays() -> None:
    sized = budget(adaptive=False, max_tokens=8192)
    assert set(run(sized, 0.004, 20_000, noise=0.1)) == {8192}


@pytest.mark.parametrize("adaptive", [True, False])
def test_out_of_memory_halves_it_and_clean_batches_bring_it_back(adaptive: bool) -> None:
    sized = budget(adaptive=adaptive, max_tokens=20_000)
    run(sized, 0.0025, 1_600_000)
    assert sized.tokens == 20_000
    sized.shrink(16_000)
    assert sized.tokens == 8_000
    sized.shrink(8_000)
    assert sized.tokens == 4_000
    sizes = run(sized, 0.0025, 1_600_000, batches=400)
    assert sizes[0] < 4_100 and sizes[-1] == 20_000, "slowly, and all the way"
    assert sizes == sorted(sizes)


def test_out_of_memory_of_a_smaller_batch_than_expected_never_raises_it() -> None:
    sized = budget(adaptive=False, max_tokens=1000)
    sized.shrink(100)
    sized.shrink(900)
    assert sized.tokens == 50
    for _ in range(20):
        sized.shrink(1)
    assert sized.tokens == 1
