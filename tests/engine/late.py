"""Claims as Redis has them: asked for now, answered later, and sometimes never."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Generic, TypeVar

from streamer.errors import TransientError
from streamer.protocols import Answer
from streamer.records import Job, TopicPartition
from tests.engine.parts import Claims

T = TypeVar("T")


class LateClaims(Claims):
    """Answers no "claim", or no "mark", while it is to `hold` it; the next `lose` answers are lost, when all
    was done already.

    With a `random`, what is asked for is done now or on the way, answered after some looks, or lost.
    """

    hold = ""
    lose = 0
    random: Random | None = None

    def __init__(self, *shared: Any) -> None:
        super().__init__(*shared)
        self.claimed: list[list[Job]] = []
        self.marked: list[Mapping[TopicPartition, int]] = []

    def claim(self, jobs: Sequence[Job]) -> Answer[list[str | None]]:
        self.claimed.append(list(jobs))
        return Late(self, "claim", lambda: super(LateClaims, self).claim(jobs))

    def mark(self, offsets: Mapping[TopicPartition, int]) -> Answer[bool]:
        self.marked.append(offsets)
        return Late(self, "mark", lambda: super(LateClaims, self).mark(offsets))


class Late(Generic[T]):
    def __init__(self, claims: LateClaims, what: str, do: Callable[[], Answer[T]]) -> None:
        self._claims = claims
        self._what = what
        self._do = do
        random = claims.random
        self._looks = random.randrange(4) if random else 0
        self._lost = random is not None and random.random() < 0.03
        self._done = None if random and random.random() < 0.5 else do()

    def get(self, timeout: float) -> T | None:
        if self._claims.hold == self._what or self._looks > 0:
            self._looks -= 1
            self._claims.wait(timeout)
            return None
        if self._done is None:
            self._done = self._do()
        if self._lost or self._claims.lose > 0:
            self._claims.lose -= 1
            raise TransientError("no answer")
        return self._done.get(timeout)
