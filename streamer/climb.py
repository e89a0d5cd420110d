"""Which size of batch is the fastest: two sizes take turns, the better one stays.

What a batch costs is no formula. On a GPU it is nearly `t0 + tokens / R`, and ever larger batches gain ever
less; on a CPU there is a size beyond which the caches do not hold it, and larger is slower; and both change
with the length of the texts. So nothing is fitted: the size in use and its double or its half are compared on
the texts of the day, and the search moves on while that pays. Before the first comparison the size doubles
with each batch that was quick, as in the slow start of TCP (RFC 5681): by comparisons, a GPU would be a
hundred batches away from a size that suits a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

# By how much the double of a size must be faster to be worth its memory and latency. With a cost of
# `t0 + tokens / R` the gain falls below this at 98% of R.
GAIN = 0.01
# A call costs some milliseconds, whatever the size of its batch: of QUICK seconds, a few percent. While the
# double is expected to take less than that, it is not compared but taken. It takes STRIKES batches in a row
# that speak against it to end this: a first call is slow for reasons of its own.
QUICK, STRIKES = 0.1, 2
# The batches of a comparison come in fours, A B B A: what drifts over four batches (the planner puts short
# texts first) falls on both sizes alike. Each four are one sample: the logarithm of the ratio of the rates.
TURNS = (0, 1, 1, 0)
FEWEST, MOST = 2, 20
# What a sample is assumed to scatter at least, and how many standard errors make a decision.
SCATTER, SURE = 0.03, 2.5
# Two sizes closer than this are not worth telling apart.
APART = 1.1
# After so many batches in a row that did not fill the smaller of two sizes, the two are taken to be alike;
# where one has filled it, after so many more: a window goes shortest texts first, and may begin with dozens.
ALIKE, ALIKE_SINCE = 8, 128
# Batches until the neighbours are tried again: the pause doubles each time that nothing has come of it.
SHORT_PAUSE, LONG_PAUSE = 50, 1600
# The rate that is remembered follows the last 50 batches; when it is this far from what it was at the end of
# the search (as a logarithm), the device or the texts are others, and the search goes on at once.
FOLLOWS, ANOTHER = 0.02, 0.25


class Climb:
    """Finds the best of the sizes `first * 2**n` from `smallest` on, without ever leaving it for long."""

    def __init__(self, smallest: int, first: int) -> None:
        """The search begins at `first`."""
        self.size = first
        self._first = first
        self._smallest = smallest
        self._start = _SlowStart(first)
        self._turn = 0
        self._again: list[int] = []  # sizes whose turn told nothing
        self._pause = SHORT_PAUSE
        self._rest = 0
        self._rate: float | None = None
        self._rate_then: float | None = None
        self._rival: int | None = None
        self._alike, self._differ = 0, False
        self._untried: int | None = None  # was no other than the size, for want of texts that fill it
        self._lost: set[int] = set()
        self._samples: list[float] = []
        self._tallies: dict[int, _Tally] = {}

    @property
    def starting(self) -> bool:
        """Nothing has been compared yet."""
        return not self._start.over

    def next(self, ceiling: int) -> int:
        """The size of the next batch; what lies above `ceiling` is cut to it by the caller."""
        if self.starting:
            self.size = self._start.next(ceiling)
        if not self.starting and self._rival is None and self._rest <= 0:
            self._challenge(ceiling)
        if self._rival is None:
            return self.size
        if self._again:
            return self._again.pop()
        self._turn = (self._turn + 1) % len(TURNS)
        return (self.size, self._rival)[TURNS[self._turn]]

    def learn(
        self, size: int, tokens: int, seconds: float, ended_at: int | None = None, *, full: bool = False
    ) -> None:
        """A batch of that size took so long for `tokens` tokens of text; padding is not counted.

        It was filled, or it had `ended_at` tokens when the texts came to an end, or, if it is `full`, when it
        had as many texts as there may be.
        """
        if tokens <= 0 or seconds <= 0:
            return
        rate = math.log(tokens / seconds)
        if self.starting:
            self._start.learn(size, rate, seconds, ended_at)
            return
        if size == self.size:
            self._rest -= 1
            self._remember(rate)
            if ended_at is None and self._untried == 2 * size:
                self._rest, self._lost, self._untried = 0, {size // 2}, None
        if self._rival is not None and size in (self.size, self._rival):
            self._compare(size, tokens, seconds, ended_at, full)

    def _compare(self, size: int, tokens: int, seconds: float, ended_at: int | None, full: bool) -> None:
        assert self._rival is not None
        smaller, larger = sorted((self.size, self._rival))
        self._alike = 0 if ended_at is None or ended_at > smaller else self._alike + 1
        self._differ = self._differ or not self._alike
        if self._alike >= (ALIKE_SINCE if self._differ else ALIKE):
            # The smaller is as good. But only a comparison leads below where the search began: at little load
            # all sizes are alike.
            self._end(loser=larger if smaller >= self._first else self._rival)
            self._untried = 2 * self.size
            return
        if self._alike and full:
            self._again.append(size)  # it was the same with either size, and tells nothing of them
            return
        self._tallies[size].add(tokens, seconds)
        mine, other = self._tallies[self.size], self._tallies[self._rival]
        if min(mine.batches, other.batches) < TURNS.count(0):
            return
        self._samples.append(math.log(other.rate / mine.rate))
        mine.clear()
        other.clear()
        self._decide()

    def _challenge(self, ceiling: int) -> None:
        """Compare with the double, then with the half; rest once both have lost.

        With the half first, where the last doubling of the slow start was none for the better.
        """
        while self.size > self._smallest and self.size // 2 >= ceiling:
            self.size //= 2
        mine = min(self.size, ceiling)
        for rival in sorted((self.size * 2, self.size // 2), reverse=not self._start.fell):
            apart = max(mine, min(rival, ceiling)) / min(mine, rival)
            if rival >= self._smallest and apart >= APART and rival not in self._lost:
                self._rival = rival
                self._turn = -1
                self._again.clear()
                self._alike, self._differ = 0, False
                self._start.fell = False
                self._samples.clear()
                self._tallies = {self.size: _Tally(), rival: _Tally()}
                return
        self._lost.clear()
        self._rest, self._pause = self._pause, min(2 * self._pause, LONG_PAUSE)
        self._rate_then = self._rate

    def _decide(self) -> None:
        assert self._rival is not None
        needed = GAIN if self._rival > self.size else -GAIN
        gain = median(self._samples)
        error = SURE * standard_error(self._samples)
        if len(self._samples) < FEWEST or (abs(gain - needed) <= error and len(self._samples) < MOST):
            return
        self._end(loser=self.size if gain > needed else self._rival)

    def _end(self, loser: int) -> None:
        assert self._rival is not None
        if loser == self.size:
            self.size, self._lost = self._rival, {loser}
            self._rate = None
            self._pause = SHORT_PAUSE
        else:
            self._lost.add(loser)
        self._rival = None

    def _remember(self, rate: float) -> None:
        self._rate = rate if self._rate is None else self._rate + FOLLOWS * (rate - self._rate)
        if self._rest > 0 and self._rate_then is not None and abs(self._rate - self._rate_then) > ANOTHER:
            self._rest, self._pause = 0, SHORT_PAUSE


class _SlowStart:
    """Doubles the size while a batch was quick, and no slower a token than the batch of half the size."""

    def __init__(self, size: int) -> None:
        self.over = False
        self.fell = False  # the rate, with the last doubling
        self._size = size
        self._half: float | None = None  # the rate at half the size, as a logarithm
        self._ceiling = 0
        self._good: bool | None = None  # the last batch, if there was one since the last size
        self._rate = 0.0
        self._strikes = 0

    def learn(self, size: int, rate: float, seconds: float, ended_at: int | None) -> None:
        """One that was cut before the size doubled says nothing, nor one that half the size had held."""
        if size != self._size or (ended_at is not None and 2 * ended_at <= size):
            return
        self._rate = rate
        self.fell = ended_at is None and self._half is not None and rate < self._half
        self._good = ended_at is None and not self.fell and 2 * seconds <= QUICK

    def next(self, ceiling: int) -> int:
        """The ceiling may be low after a slow first call, or a single text; then it rises."""
        if self._good is None:
            return self._size
        good, self._good = self._good, None
        rises, self._ceiling = ceiling > self._ceiling, ceiling
        if good and self._size < ceiling:
            self._size, self._half, self._strikes = 2 * self._size, self._rate, 0
        elif not (good and rises):
            self._strikes += 1
            self.over = self._strikes == STRIKES
        return self._size


class _Tally:
    """What came of the batches of a size since the last sample."""

    def __init__(self) -> None:
        self.clear()

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    def add(self, tokens: int, seconds: float) -> None:
        self.batches += 1
        self.tokens += tokens
        self.seconds += seconds

    def clear(self) -> None:
        self.batches = self.tokens = 0
        self.seconds = 0.0


def standard_error(samples: Sequence[float]) -> float:
    """Of their median. The scatter is taken from the median of the deviations: one hiccup must not count.

    For normal samples a standard deviation is 1.4826 of those medians, and the error of the median
    sqrt(pi / 2) of the error of the mean.
    """
    middle = median(samples)
    scatter = max(SCATTER, 1.4826 * median(abs(sample - middle) for sample in samples))
    return math.sqrt(math.pi / 2 / len(samples)) * scatter
