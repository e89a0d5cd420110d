"""How large a batch may be: found by trying, not guessed."""

from __future__ import annotations

from collections.abc import Callable

from streamer.climb import Climb
from streamer.records import Batch

# What the device computes on for a batch, in tokens: of (texts, their tokens, tokens of the longest).
Cost = Callable[[int, int, int], int]

# Below this nothing leads: the engine pays for each batch, and a latency that no single text can meet is not
# met by smaller batches.
FLOOR = 512
# Where the search starts. Not at the floor: for BERT's shape in bf16, oneDNN has kernels of half the speed
# between 490 and 1,280 rows, and a search that climbs by doubling would not get across.
START = 2048
# The bound after an out-of-memory error, against the batches since, as CUBIC has it for a network (RFC 9438):
# from half of what failed to 0.9 of it within PLATEAU batches, there for long, then faster and faster.
SAFE, PLATEAU = 0.9, 300
# What the rate that bounds a batch's latency keeps of itself with each batch.
KEEPS = 0.9


def padded(texts: int, tokens: int, longest: int) -> int:
    """The cost for a model that wants all texts of a batch as long as its longest."""
    return texts * longest


class TokenBudget:
    """The largest batch worth offering: `max_texts` texts, and `tokens` that the device computes on.

    The size is the one that gives the most tokens of text a second (`Climb`), within `max_tokens`, within
    what takes `max_latency` seconds, and within what memory was seen to hold. With `adaptive` off it is
    `max_tokens`, and only memory moves it.
    """

    def __init__(
        self,
        *,
        max_texts: int,
        max_tokens: int,
        max_latency: float,
        adaptive: bool,
        cost: Cost = padded,
    ) -> None:
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.max_latency = max_latency
        self.cost = cost
        self._climb = Climb(FLOOR, START) if adaptive else None
        self._memory = MemoryBound()
        self._rate: float | None = None

    @property
    def ceiling(self) -> int:
        """What no batch may exceed, unless it is a single text."""
        ceiling = min(self.max_tokens, self._memory.tokens)
        if self._climb is not None and self._rate is not None:
            ceiling = min(ceiling, max(FLOOR, self.max_latency * self._rate))
        return max(1, int(ceiling))

    @property
    def tokens(self) -> int:
        """The size that is the best so far."""
        return self.ceiling if self._climb is None else min(self._climb.size, self.ceiling)

    def next(self) -> int:
        """The size that the next batch is to be filled to, `ceiling` permitting: now and then another one."""
        return self.max_tokens if self._climb is None else self._climb.next(self.ceiling)

    def observe(self, batch: Batch, seconds: float) -> None:
        """Learn from a batch that took so long."""
        self._memory.held()
        if self._climb is None or not batch.size:
            return
        # What the end of a window left half empty tells of the load, not of the size.
        full = len(batch.jobs) >= self.max_texts
        if batch.filled or full or 2 * batch.tokens > min(batch.size, self.ceiling):
            tokens = sum(job.tokens for job in batch.jobs)
            ended_at = None if batch.filled else batch.tokens
            self._climb.learn(batch.size, tokens, seconds, ended_at, full=full)
        if seconds > 0:
            rate = batch.tokens / seconds
            self._rate = rate if self._rate is None else KEEPS * self._rate + (1 - KEEPS) * rate

    def shrink(self, tokens: int) -> None:
        """A batch of `tokens` did not fit into memory."""
        self._memory.failed(tokens)


class MemoryBound:
    """How many tokens fit: unknown until a batch did not."""

    def __init__(self) -> None:
        self.tokens = float("inf")
        self._failed = 0.0
        self._since = 0

    def failed(self, tokens: int) -> None:
        """This many did not fit. More than is allowed by now is a batch of earlier, or a single long text."""
        if tokens > self.tokens:
            return
        self._failed, self._since = float(tokens), 0
        self._settle()

    def held(self) -> None:
        """A batch did fit."""
        if self._failed:
            self._since += 1
            self._settle()

    def _settle(self) -> None:
        way = (self._since - PLATEAU) / PLATEAU
        self.tokens = self._failed * (SAFE + (SAFE - 0.5) * way**3)
