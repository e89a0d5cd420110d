"""The search against simulated devices: it ends at a size that is nearly the best, and stays near it."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest

from streamer.climb import GAIN, LONG_PAUSE, QUICK, STRIKES, Climb, standard_error
from streamer.sizing import START

Device = Callable[[int], float]  # seconds for so many tokens
SIZES = [512 << step for step in range(8)]
TOP = SIZES[-1]


def affine(overhead: float, rate: float) -> Device:
    return lambda tokens: overhead + tokens / rate


def cached(tokens: int) -> float:
    """A CPU: each doubling beyond 2,048 tokens, which the caches hold, costs a fifth more."""
    return 0.001 + tokens / 50_000 * (1 + 0.2 * max(0.0, math.log2(tokens / 2048)))


def dipped(tokens: int) -> float:
    """oneDNN on two cores with AMX, in bf16: above 512 rows a kernel that is half as fast, up to 1,300."""
    return 0.004 + tokens / (9_000 if 512 < tokens < 1300 else 13_000)


DEVICES = {
    "H200": affine(0.0025, 1_600_000),
    "small GPU": affine(0.001, 500_000),
    "CPU": affine(0.004, 20_000),
    "remote": affine(0.030, 300_000),
    "CPU with caches": cached,
    "CPU with a dip": dipped,
    "no overhead": affine(0.0, 100_000),
}


def run(
    climb: Climb, device: Device, *, batches: int = 600, noise: float = 0.0, seed: int = 1, ceiling: int = TOP
) -> float:
    """Offer batches a little below the size, as texts happen to fall; the rate over all of them."""
    random = Random(seed)
    tokens, seconds = 0, 0.0
    for _ in range(batches):
        size = climb.next(ceiling)
        held = int(min(size, ceiling) * random.uniform(0.93, 1.0))
        took = device(held) * random.lognormvariate(0.0, noise) * (3 if random.random() < noise / 2 else 1)
        climb.learn(size, held, took)
        tokens, seconds = tokens + held, seconds + took
    return tokens / seconds


def share(size: int, device: Device, sizes: list[int] = SIZES) -> float:
    """The rate at a size, of the rate at the best one."""
    return size / device(size) / max(each / device(each) for each in sizes)


@pytest.mark.parametrize("name", DEVICES)
def test_it_ends_within_5_percent_of_the_best_size(name: str) -> None:
    climb = Climb(SIZES[0], START)
    run(climb, DEVICES[name])
    assert share(climb.size, DEVICES[name]) >= 0.95


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("seed", range(10))
def test_noise_and_hiccups_do_not_lead_it_astray(name: str, seed: int) -> None:
    climb = Climb(SIZES[0], START)
    run(climb, DEVICES[name], batches=1200, noise=0.05, seed=seed)
    assert share(climb.size, DEVICES[name]) >= 0.95


@pytest.mark.parametrize("name", DEVICES)
def test_the_search_itself_costs_little(name: str) -> None:
    """Against the best size from the first batch on, on a device that does not waver."""
    device = DEVICES[name]
    rate = run(Climb(SIZES[0], START), device, batches=2000)
    assert rate >= 0.95 * max(size / device(size) for size in SIZES)


@pytest.mark.parametrize("name", ["H200", "small GPU"])
def test_a_fast_device_is_not_fed_small_batches_while_it_searches(name: str) -> None:
    rate = run(Climb(SIZES[0], START), DEVICES[name], batches=60)
    assert rate >= 0.98 * max(size / DEVICES[name](size) for size in SIZES)


def started(rate: float, overhead: float = 0.004, *, batches: int = 10, ceiling: int = TOP) -> Climb:
    """A climb that has seen full batches of a device, and no noise."""
    climb = Climb(SIZES[0], START)
    for _ in range(batches):
        size = climb.next(ceiling)
        held = min(size, ceiling)
        climb.learn(size, held, overhead + held / rate)
    return climb


def test_it_begins_with_the_largest_size_that_is_quick() -> None:
    climb = started(5 * START / QUICK, batches=3)
    assert (climb.next(TOP), climb.starting) == (4 * START, True)
    climb = started(5 * START / QUICK, batches=4)
    assert (climb.next(TOP), climb.starting) == (4 * START, False), "and then compares"


def test_batches_under_way_when_the_size_doubled_do_not_double_it_again() -> None:
    climb = Climb(SIZES[0], START)
    assert [climb.next(TOP) for _ in range(3)] == [START] * 3
    climb.learn(START, START, QUICK / 100)
    assert climb.next(TOP) == 2 * START
    for _ in range(2):
        climb.learn(START, START, QUICK / 200)
        assert climb.next(TOP) == 2 * START


def test_a_slow_first_call_does_not_end_the_beginning() -> None:
    climb, size = Climb(SIZES[0], START), START
    for slow in (True, False, True, False, True, True):
        assert (climb.next(TOP), climb.starting) == (size, True)
        climb.learn(size, size, QUICK if slow else 0.004 + size / 1e9)
        size = size if slow else 2 * size
    assert (climb.next(TOP), climb.starting) == (4 * START, False)


@pytest.mark.parametrize("ceiling", [START, 2 * START, 3 * START])
def test_it_begins_no_higher_than_the_ceiling(ceiling: int) -> None:
    climb = Climb(SIZES[0], START)
    offered = []
    while climb.starting:
        offered.append(climb.next(ceiling))
        climb.learn(offered[-1], min(offered[-1], ceiling), 1e-9 * min(offered[-1], ceiling) + 1e-9)
        assert len(offered) < 20
    assert max(offered) // 2 < ceiling <= max(offered)


def test_a_ceiling_that_rises_is_waited_for() -> None:
    """The rate that it comes from is an average; a slow first call stays in it for a while."""
    climb, ceiling = Climb(SIZES[0], START), 512
    while ceiling < TOP:
        size = climb.next(ceiling)
        climb.learn(size, min(size, ceiling), 0.004 + min(size, ceiling) / 1e9)
        ceiling += 300
    assert climb.starting and climb.size == TOP


def test_where_doubling_made_it_slower_the_half_is_compared_first() -> None:
    climb = Climb(SIZES[0], START)
    while climb.starting:
        size = climb.next(TOP)
        climb.learn(size, size, cached(size))
    assert climb.size == 2 * START, "2,048 tokens take 42 ms here"
    assert {climb.next(TOP) for _ in range(4)} == {START, 2 * START}


def test_it_begins_no_higher_than_where_doubling_made_it_slower() -> None:
    climb = Climb(SIZES[0], START)
    while climb.starting:
        size = climb.next(TOP)
        climb.learn(size, size, (size / START) ** 1.1 / 1000)
    assert climb.size == 2 * START


def test_what_half_the_size_had_held_tells_the_beginning_nothing() -> None:
    climb = Climb(SIZES[0], START)
    for _ in range(5):
        climb.learn(climb.next(TOP), 900, 0.001, ended_at=900, full=True)
    assert climb.starting
    assert climb.next(TOP) == START


def test_what_texts_did_not_fill_does_not_say_that_the_size_is_slower() -> None:
    climb = Climb(SIZES[0], START)
    climb.learn(climb.next(TOP), START, 0.01)
    while climb.starting:
        climb.learn(climb.next(TOP), 3000, 0.02, ended_at=3000, full=True)
    assert {climb.next(TOP) for _ in range(4)} == {2 * START, 4 * START}


def test_batches_that_are_the_same_with_either_size_do_not_blur_the_comparison() -> None:
    """Every second one: ended by the number of texts, and taking one time or another."""
    device, astray = DEVICES["H200"], 0
    for seed in range(20):
        climb, random = Climb(SIZES[0], START), Random(seed)
        for _ in range(300):
            size = climb.next(TOP)
            climb.learn(size, size, device(size))
            size = climb.next(TOP)
            climb.learn(size, 1000, random.lognormvariate(-4.0, 2.0), ended_at=1000, full=True)
        astray += share(climb.size, device) < 0.95
    assert not astray


def test_it_begins_no_higher_than_what_texts_fill() -> None:
    climb = Climb(SIZES[0], START)
    sizes = []
    while climb.starting:
        sizes.append(climb.next(TOP))
        climb.learn(sizes[-1], 2000, 0.001, ended_at=2000, full=True)
    assert sizes == [START] * (STRIKES + 1), "the last of them is the first that is compared"


def fed(
    climb: Climb, texts: Callable[[int], int], batches: int, device: Device = DEVICES["H200"]
) -> list[int]:
    """Batches of so many tokens at a size, and as many texts as there may be; the sizes."""
    sizes = []
    for _ in range(batches):
        sizes.append(size := climb.next(TOP))
        held = texts(size)
        climb.learn(size, held, device(held), None if held == size else held, full=True)
    return sizes


def small_cache(rate: float) -> Device:
    return lambda tokens: tokens / rate * (1.25 if tokens > 2500 else 1.0)


def test_a_size_that_is_never_filled_is_not_left_to_the_slow_start() -> None:
    """Batches of 3,000 tokens, as many texts as there may be, on a device whose caches hold 2,500."""
    climb = Climb(SIZES[0], START)
    fed(climb, lambda size: min(size, 3000), 200, small_cache(100_000))
    assert climb.size <= START


def test_two_sizes_that_texts_do_not_fill_are_the_same() -> None:
    """Batches of 3,000 tokens at the most: of 4,096 and all above it nothing is to be learned."""
    climb = Climb(SIZES[0], START)
    sizes = fed(climb, lambda size: min(size, 3000), 1000)
    assert climb.size == 4096
    assert sizes[-500:].count(4096) > 450, "the rest are other sizes, tried now and then"


def test_sizes_that_texts_do_not_fill_any_more_lead_down_to_those_they_do() -> None:
    climb = Climb(SIZES[0], START)
    run(climb, DEVICES["CPU"])
    assert climb.size >= 8192
    fed(climb, lambda size: min(size, 3000), 500, small_cache(20_000))
    assert climb.size <= START


def test_little_load_does_not_lead_below_where_the_search_began() -> None:
    climb = Climb(SIZES[0], START)
    while climb.starting:
        size = climb.next(TOP)
        climb.learn(size, size, dipped(size))
    for _ in range(2000):
        climb.learn(climb.next(TOP), 900, dipped(900), ended_at=900)
    assert climb.size == START


def test_a_batch_that_is_filled_after_long_brings_up_the_double_and_not_the_half() -> None:
    climb = Climb(SIZES[0], START)
    fed(climb, lambda size: min(size, 3000), 4 * LONG_PAUSE)
    assert climb.size == 4096
    while (size := climb.next(TOP)) != 4096 or len(set(fed(climb, lambda size: 3000, 20))) > 1:
        climb.learn(size, 3000, DEVICES["H200"](3000), ended_at=3000, full=True)
    climb.learn(4096, 4096, DEVICES["H200"](4096))
    assert START not in fed(climb, lambda size: min(size, 3000), 20)
    climb.learn(4096, 4096, DEVICES["H200"](4096))
    assert set(fed(climb, lambda size: size, 4)) == {4096, 8192}


def test_a_size_that_was_never_filled_is_tried_when_texts_fill_the_half_of_it() -> None:
    climb = Climb(SIZES[0], START)
    fed(climb, lambda size: min(size, 3000), 4 * LONG_PAUSE)
    fed(climb, lambda size: size, 100)
    assert share(climb.size, DEVICES["H200"]) >= 0.95


def test_where_larger_gains_nothing_it_ends_small() -> None:
    climb = Climb(SIZES[0], START)
    run(climb, DEVICES["no overhead"], batches=3000)
    assert climb.size == SIZES[0]


def test_it_comes_down_again_when_larger_has_become_slower() -> None:
    climb = Climb(SIZES[0], START)
    run(climb, affine(0.004, 400_000))
    assert climb.size > 8192
    run(climb, lambda tokens: tokens / 100_000 * (1 + tokens / 4096))
    assert climb.size == SIZES[0]


@pytest.mark.parametrize("seed", range(5))
def test_it_follows_a_device_whose_overhead_grows(seed: int) -> None:
    climb, slower = Climb(SIZES[0], START), affine(0.004, 1_000_000)
    run(climb, affine(0.0002, 1_000_000), batches=2000, noise=0.03, seed=seed)
    run(climb, slower, batches=800, noise=0.03, seed=seed)
    assert share(climb.size, slower) >= 0.95


def test_once_settled_it_tries_others_ever_more_rarely() -> None:
    climb = Climb(SIZES[0], START)
    run(climb, cached, batches=4 * LONG_PAUSE)
    tried = 0
    for _ in range(LONG_PAUSE):
        size = climb.next(TOP)
        tried += size != climb.size
        climb.learn(size, size, cached(size))
    assert 0 < tried <= 0.03 * LONG_PAUSE


def test_under_a_ceiling_it_compares_what_can_be_had() -> None:
    climb = Climb(SIZES[0], START)
    run(climb, DEVICES["H200"], ceiling=3000)
    assert min(climb.size, 3000) == 3000
    run(climb, DEVICES["CPU with caches"], ceiling=600)
    assert climb.size <= 1024, "a size far above the ceiling cannot be compared with anything"
    assert {climb.next(600) for _ in range(100)} <= {512, 1024}


def test_what_it_did_not_ask_for_teaches_nothing() -> None:
    climb = started(20_000)
    before = climb.size
    for _ in range(100):
        size = climb.next(TOP)
        climb.learn(7 * 512, 100, 1e-6)
        climb.learn(size, 0, 1e-6)
        climb.learn(size, size, 0.0)
    assert (climb.size, climb.starting) == (before, False)


def test_lost_batches_do_not_stop_it() -> None:
    """Failed, halved, of a partition that is gone: their outcome never comes."""
    climb, random = Climb(SIZES[0], START), Random(1)
    for _ in range(1000):
        size = climb.next(TOP)
        if random.random() < 0.7:
            climb.learn(size, size, DEVICES["H200"](size))
    assert share(climb.size, DEVICES["H200"]) >= 0.95


def test_outcomes_that_come_late_are_counted_for_their_own_size() -> None:
    climb = Climb(SIZES[0], START)
    under_way = [climb.next(TOP) for _ in range(6)]
    for _ in range(600):
        under_way.append(climb.next(TOP))
        size = under_way.pop(0)
        climb.learn(size, size, cached(size))
    assert share(climb.size, cached) >= 0.95


def test_a_gain_below_the_threshold_is_not_taken() -> None:
    climb = Climb(SIZES[0], START)
    run(climb, lambda tokens: tokens / 1e5 * (1 - GAIN / 2) ** math.log2(tokens / 512))
    assert climb.size == SIZES[0]


def test_the_standard_error_is_that_of_the_median() -> None:
    random = Random(1)
    runs = [[random.gauss(0.0, 0.2) for _ in range(101)] for _ in range(200)]
    medians = [sorted(samples)[50] for samples in runs]
    seen = math.sqrt(sum(middle**2 for middle in medians) / len(medians))
    estimated = sum(map(standard_error, runs)) / len(runs)
    assert estimated == pytest.approx(seen, rel=0.15)
