"""Texts to rows of token ids, a window of texts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.loading import Encoder
from streamer.backends.torch.long_texts import Fitting, LongTexts
from streamer.backends.torch.pieces import pieces_of
from streamer.errors import RecordError
from streamer.records import Encoding

# A token of text rarely has more characters than this: what a text holds beyond so many times the tokens that
# count is not tokenized at first. A megabyte would hold the engine up for a second, to be thrown away.
CHARACTERS_PER_TOKEN = 32
# How far before that place a space is looked for: a word must not be cut in two.
SPACE_WITHIN = 1000


class TextEncoder:
    """The tokenizer, and what it does with long texts. One thread may use it."""

    def __init__(self, encoder: Encoder, long_texts: LongTexts) -> None:
        """Raises ConfigurationError when windows would not move on."""
        self.max_length = encoder.max_length
        self._tokenizer = encoder.tokenizer
        self._fitting = Fitting(
            encoder.max_length,
            encoder.before,
            encoder.after,
            long_texts,
            keep_end=encoder.keep_end,
        )
        pieces = pieces_of(self._tokenizer)
        self._tokenize = self._whole if pieces is None else pieces.ids
        most = self._fitting.most
        # One token more than counts: then it is known that there are more.
        self._tokenizer.enable_truncation(most + 1, direction="left" if encoder.keep_end else "right")
        self._characters = None if encoder.keep_end else most * CHARACTERS_PER_TOKEN

    def encode(self, texts: Sequence[str]) -> list[Encoding | RecordError]:
        """For each text its tokens, special ones included, as int32 [tokens] or as Windows of such rows.

        In the place of a text that has none, or too many by policy, there is a RecordError. Raises
        RecordError when the tokenizer refuses a text: alone, it is known which.
        """
        try:
            ids, lengths = self._ids(texts)
        except (TypeError, UnicodeEncodeError) as error:
            raise RecordError("not_unicode", "the text holds half a surrogate pair") from error
        return self._rows(ids, lengths)

    def row(self, tokens: int) -> Tokens:
        """Some text of so many tokens, or of the least that a text has."""
        before, after = self._fitting.before, self._fitting.after
        ids, _ = self._ids(["好"])
        return np.concatenate((before, np.resize(ids, max(1, tokens - len(before) - len(after))), after))

    def _rows(self, ids: Tokens, lengths: Tokens) -> list[Encoding | RecordError]:
        """From the ids of all texts, one behind another, to rows with special tokens."""
        fitting = self._fitting
        before, after = fitting.before, fitting.after
        special = len(before) + len(after)
        ends = np.concatenate(([0], np.cumsum(lengths + special)))
        rows = np.empty(ends[-1], dtype=np.int32)
        shift = np.arange(len(lengths)) * special + len(before)
        rows[np.arange(len(ids)) + np.repeat(shift, lengths)] = ids
        for number, token in enumerate(before):
            rows[ends[:-1] + number] = token
        for number, token in enumerate(after[::-1], start=1):
            rows[ends[1:] - number] = token
        found: list[Encoding | RecordError] = []
        for start, stop in pairwise(ends.tolist()):
            tokens = stop - start
            if tokens - special > fitting.room:
                found.append(fitting.fit(rows[start + len(before) : stop - len(after)]))
            elif tokens:
                found.append(Encoding(tokens, rows[start:stop]))
            else:
                found.append(RecordError("no_tokens", "the tokenizer makes no token of the text"))
        return found

    def _ids(self, texts: Sequence[str]) -> tuple[Tokens, Tokens]:
        """Ids of all texts without special tokens, one text behind another, and the tokens of each text."""
        ids, lengths = self._tokenize([self._cut(text) for text in texts])
        if sparse := self._sparse(texts, lengths):
            rows = np.split(ids, np.cumsum(lengths)[:-1])
            for index in sparse:
                rows[index], _ = self._tokenize([texts[index]])
            return np.concatenate(rows), np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
        return ids, lengths

    def _sparse(self, texts: Sequence[str], lengths: Tokens) -> list[int]:
        """Texts with few tokens in many characters, white space, say: all of such a text counts."""
        limit = self._characters
        if limit is None:
            return []
        few = np.flatnonzero(lengths <= self._fitting.most).tolist()
        return [index for index in few if len(texts[index]) > limit]

    def _cut(self, text: str) -> str:
        limit = self._characters
        if limit is None or len(text) <= limit:
            return text
        at = text.rfind(" ", max(0, limit - SPACE_WITHIN), limit)
        return text[: limit if at < 0 else at]

    def _whole(self, texts: Sequence[str]) -> tuple[Tokens, Tokens]:
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        lengths = np.fromiter(map(len, found), dtype=np.int32, count=len(found))
        ids = chain.from_iterable([encoding.ids for encoding in found])
        return np.fromiter(ids, dtype=np.int32, count=int(lengths.sum())), lengths
