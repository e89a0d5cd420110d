"""How large a batch may be: fitted to the device, not guessed."""

from __future__ import annotations

from collections.abc import Callable

# What the device computes on for a batch, in tokens: of (texts, their tokens, tokens of the longest).
Cost = Callable[[int, int, int], int]

# The share of the device's best rate at which a larger batch stops paying.
KNEE = 0.95
# What a measurement keeps of its weight when the next one comes: half is gone after 35 batches.
FORGETTING = 0.98
# Two sizes must differ by this share before a line through them means something.
SPREAD = 0.05
# No fit leads below this. Without measurable overhead every size is as good by the formula, but not for the
# engine, which pays for each batch; and a latency that no single text can meet is not met by smaller batches.
FLOOR = 512
# How much of the bound that an out-of-memory error set each clean batch gives back.
RECOVERY = 0.01


def padded(texts: int, tokens: int, longest: int) -> int:
    """The cost for a model that wants all texts of a batch as long as its longest."""
    return texts * longest


class TokenBudget:
    """The largest batch worth offering: `max_texts` texts, and `tokens` that the device computes on.

    The time of a batch is fitted as `t = t0 + tokens / R` by least squares over exponentially weighted
    measurements. The device reaches the share K of its rate R at `K / (1 - K) * t0 * R` tokens: that is the
    budget, within `max_tokens`, within what takes `max_latency` seconds, and within what memory was seen to
    hold. With `adaptive` off it is `max_tokens`, and only memory moves it.
    """

    def __init__(
        self,
        *,
        max_texts: int,
        max_tokens: int,
        max_latency: float,
        adaptive: bool,
        initial: int = 4096,
        cost: Cost = padded,
    ) -> None:
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.max_latency = max_latency
        self.adaptive = adaptive
        self.cost = cost
        self.tokens = min(initial, max_tokens) if adaptive else max_tokens
        self._memory = float(max_tokens)
        # Weighted sums over the measurements: of 1, x, y, x*x and x*y, with x in tokens and y in seconds.
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a batch of `tokens` tokens that took `seconds`."""
        self._memory = min(self.max_tokens, self._memory * (1 + RECOVERY))
        keep = FORGETTING
        self._n = self._n * keep + 1
        self._x = self._x * keep + tokens
        self._y = self._y * keep + seconds
        self._xx = self._xx * keep + tokens * tokens
        self._xy = self._xy * keep + tokens * seconds
        self._settle()

    def shrink(self, tokens: int) -> None:
        """A batch of `tokens` did not fit into memory: stay under half of it, and recover slowly."""
        self._memory = max(1.0, min(self._memory, tokens / 2))
        self._settle()

    def fit(self) -> tuple[float, float] | None:
        """(t0 in seconds, R in tokens a second); None while the batches were too much alike to tell."""
        variance = self._n * self._xx - self._x * self._x
        if variance <= (SPREAD * self._x) ** 2:
            return None
        slope = (self._n * self._xy - self._x * self._y) / variance
        if slope <= 0:
            return None
        return max(0.0, (self._y - slope * self._x) / self._n), 1 / slope

    def _settle(self) -> None:
        ceiling = min(float(self.max_tokens), self._memory)
        if not self.adaptive:
            self.tokens = max(1, int(ceiling))
            return
        target = float(self.tokens)
        if fitted := self.fit():
            overhead, rate = fitted
            ceiling = min(ceiling, max(FLOOR, (self.max_latency - overhead) * rate))
            knee = max(FLOOR, KNEE / (1 - KNEE) * overhead * rate)
            # A step at a time: one odd measurement must not throw the budget.
            target = max(target / 2, min(target * 2, knee))
        self.tokens = max(1, int(min(target, ceiling)))
