"""Cases take turns over the same texts, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from streamer.errors import StreamerError


class Incomplete(StreamerError):
    """A figure counts only when every text came out, once."""


class Turn(Struct):
    """What one pass over the texts gave. Times are in seconds.

    `tokens` are those of the texts, `computed` what the device worked on, both 0 where they are not known.
    `squares` sums the squares of the texts' tokens: attention costs so much. `services` has the time of each
    batch, `budgets` the budget in tokens after so many seconds.
    """

    labels: list[str]
    tokens: int = 0
    computed: int = 0
    squares: int = 0
    services: list[float] = field(default_factory=list)
    budgets: list[tuple[float, int]] = field(default_factory=list)
    seconds: float = 0.0


SOME = 64  # texts, at least, that a case sees before its first turn

Case = Callable[[Sequence[str]], Turn]


def take_turns(
    cases: Mapping[str, Case],
    texts: Sequence[str],
    repeats: int,
    warming: Mapping[str, Case] | None = None,
    said: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Turn]]:
    """`repeats` turns of each case, in turn, after an untimed one over an eighth of the texts.

    `warming` has what to call instead for that one. A case that sets the seconds of its turn has its clock.

    Raises Incomplete when a case gives fewer or more labels than there are texts.
    """
    for name, case in cases.items():
        said(f"warming up: {name}")
        _turn(name, (warming or {}).get(name, case), texts[: max(SOME, len(texts) // 8)])
    turns: dict[str, list[Turn]] = {name: [] for name in cases}
    for repeat in range(1, repeats + 1):
        for name, case in cases.items():
            said(f"{repeat} of {repeats}: {name}")
            turns[name].append(_turn(name, case, texts))
    return turns


def _turn(name: str, case: Case, texts: Sequence[str]) -> Turn:
    started = time.perf_counter()
    turn = case(texts)
    turn.seconds = turn.seconds or time.perf_counter() - started
    if len(turn.labels) != len(texts):
        raise Incomplete(f"'{name}' gave {len(turn.labels)} labels for {len(texts)} texts")
    return turn
