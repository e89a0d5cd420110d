"""What becomes of a text that has more tokens than the model takes, see docs/texts.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.backends.torch.attention import Tokens
from streamer.errors import ConfigurationError, RecordError
from streamer.records import Encoding
from streamer.tasks.classification import Pooling, Shares

Policy = Literal["truncate", "dead_letter", "windows"]


@dataclass(frozen=True, slots=True)
class LongTexts:
    """The settings. `overlap` is how many tokens a window shares with the next, `most` how many windows a
    text may have: what it holds beyond them is cut."""

    policy: Policy = "truncate"
    overlap: int = 32
    most: int = 16
    pooling: Pooling = "mean"


class Windows(NamedTuple):
    """A text that is several rows. `tokens` says of each how many tokens it is the first to hold."""

    rows: list[Tokens]
    tokens: list[int]


class Fitting:
    """Fits the tokens of a text, without special ones, into rows of `max_length`."""

    def __init__(
        self, max_length: int, before: Tokens, after: Tokens, long_texts: LongTexts, *, keep_end: bool = False
    ) -> None:
        """`before` and `after` are the special tokens of a row. `keep_end`: a cut takes the text's beginning.

        Raises ConfigurationError when windows would not move on.
        """
        self.before, self.after = before, after
        self.room = max_length - len(before) - len(after)
        self._max_length = max_length
        self._settings = long_texts
        self._keep_end = keep_end
        self._step = self.room - long_texts.overlap
        most = self.room
        if long_texts.policy == "windows":
            if self._step < 1:
                raise ConfigurationError(
                    f"model.window_overlap is {long_texts.overlap}, and a row holds {self.room} tokens of a "
                    "text: it must be less"
                )
            most += self._step * (long_texts.most - 1)
        # Of the tokens of a text, those that count.
        self.most = most

    def fit(self, tokens: Tokens) -> Encoding | RecordError:
        """What `infer` wants of a text that has more than `room` tokens."""
        cut = len(tokens) > self.most
        if cut and self._settings.policy == "dead_letter":
            return RecordError("too_long", f"more than {self._max_length} tokens, which is model.max_length")
        kept = self._cut(tokens) if cut else tokens
        if self._settings.policy != "windows":
            return Encoding(self._max_length, self._row(kept), cut)
        last = len(kept) - self.room
        # The last window is as long as the others, and reaches back further.
        starts = [*range(0, last, self._step), last]
        rows = [self._row(kept[start : start + self.room]) for start in starts]
        fresh = [self.room, *np.diff(starts).tolist()]
        return Encoding(self._max_length * len(rows), Windows(rows, fresh), cut)

    def _cut(self, tokens: Tokens) -> Tokens:
        return tokens[-self.most :] if self._keep_end else tokens[: self.most]

    def _row(self, tokens: Tokens) -> Tokens:
        return np.concatenate((self.before, tokens, self.after))


def spread(encoded: Iterable[Tokens | Windows]) -> tuple[list[Tokens], Shares | None]:
    """The rows of a batch, and what each has to say of its text; None when every text is one row."""
    rows: list[Tokens] = []
    starts: list[int] = []
    weights: list[int] = []
    for one in encoded:
        starts.append(len(rows))
        if isinstance(one, Windows):
            rows += one.rows
            weights += one.tokens
        else:
            rows.append(one)
            weights.append(1)
    if len(rows) == len(starts):
        return rows, None
    held: NDArray[np.float64] = np.array(weights, dtype=np.float64)
    return rows, Shares(np.array(starts), held)
