"""The time of batches that overlap, against a count of every moment."""

from __future__ import annotations

import random

import pytest

from streamer.occupancy import KEPT, Occupancy


def busy(stretches: list[tuple[int, int]]) -> int:
    return len({moment for start, end in stretches for moment in range(start, end)})


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_every_moment_counts_once(threads: int, seed: int) -> None:
    """Threads with one batch after another: what they had, in the order in which they gave it back."""
    dice = random.Random(seed)
    stretches = []
    for _ in range(threads):
        now = 0
        while now < 2_000:
            start = now + dice.choice([0, 0, 0, 7, 40])
            now = start + dice.randrange(1, 60)
            stretches.append((start, now))
    stretches.sort(key=lambda stretch: stretch[1])
    device = Occupancy()
    assert sum(device.add(*stretch) for stretch in stretches) == busy(stretches)


def test_what_comes_late_counts_no_moment_twice() -> None:
    """A thread that ends first may be heard last."""
    device = Occupancy()
    assert device.add(10, 12) == 2
    assert device.add(8, 11) == 2
    assert device.add(0, 4) == 4


def test_it_stays_small() -> None:
    device = Occupancy()
    for number in range(10 * KEPT):
        assert device.add(number, number + 0.5) == 0.5
    assert len(device._stretches) == KEPT
