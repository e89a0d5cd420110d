"""Tokens by the piece: what a tokenizer made of a piece of text once, it makes of it again.

A text is cut where its tokenizer's rules cannot reach across (`cutting.py`), for a whole window of texts at
once, and the tokens of each piece are looked up. Pieces that were not seen before go to the tokenizer itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import chain, repeat

import numpy as np
from tokenizers import Tokenizer

from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.cutting import Codes, Cutter, Mask, Places, cutter_of

log = logging.getLogger(__name__)

# Pieces that are remembered, 100 to 200 bytes each, and their tokens. When there are more, all are forgotten.
REMEMBERED = 1 << 17
MOST_TOKENS = 1 << 20
# Longer ones, in characters, hardly come again.
LONGEST = 32

# New ones that go to the tokenizer as one text.
TOGETHER = 32

# What a check of the rules must have seen: accents, composed and not, marks that combine with anything,
# control characters, wide forms and ligatures, emoji of several code points, scripts without spaces, added
# tokens, contractions, and runs beyond every bound.
HOSTILE = (
    "",
    " ",
    "\u0301",
    "naïve cafe\u0301 Ångström a\u0308 \u4e2d\u0301\u6587 ,\u0338 \u037e",
    "a\x00b\u200bc\ufeffd\u00ade\x7f\u0085f\u2028g\ufffd",
    "ＡＢＣ１２３，。！？＇ｎ＇ｔ ﬁ ﷺ ㍿ ① ½ Ⅷ ｶﾞ 가",
    "👨‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ 😀😀😀😀😀😀😀😀",
    "ประเทศไทย العربية हिन्दी ひらがなカタカナ한국어 Ελλάς ΣΑΣ İstanbul",
    "[CLS] [SEP][MASK] a[UNK]b [cls] [ SEP ] ##a",
    "it 's it's 'tis do n't DO N'T n't's 's x's中 x  's\t's ' 's’ s rock'n'roll ’s ‘re `d ´m",
    "x 's中",
    "x 's_",
    "x 's9",
    "....... ……。。。！！!!！ ——— ~~～～ ,， ''''' ``",
    "12345 3.14 1,000 a1b2 _x_ #@$%^&*()[]{}<>/\\|+=-",
    "\u4e2d" * 60 + "\u9f98" * 30 + "a" * 130 + "\u56fd\u4e2d\u56fd" * 20,
    "\u3400\u9fff\uf900\U00020000\U0002f800\u3007\u3005\u2e80",
    "中 's 国 n't，'s。 's",
)


class Pieces:
    """Gives the same tokens as the tokenizer. One thread may use it."""

    def __init__(self, tokenizer: Tokenizer, cutter: Cutter) -> None:
        self._tokenizer = tokenizer
        self._cutter = cutter
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        # Of the pieces that are a single character with a single token; -1 for the others.
        self._token = np.full(0x110000, -1, dtype=np.int32)
        self._numbers: dict[str, int] = {}
        # Piece n has the ids from `offsets[n]`, `counts[n]` of them.
        self._offsets: Places = np.empty(0, dtype=np.int64)
        self._counts: Places = np.empty(0, dtype=np.int64)
        self._ids: Tokens = np.empty(0, dtype=np.int32)

    def ids(self, texts: Sequence[str]) -> tuple[Tokens, Tokens]:
        """The ids of all texts without special tokens, one text behind another, and how many each text has.

        Raises UnicodeEncodeError when a text holds half a surrogate pair.
        """
        if not texts:
            return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32)
        joined = "\n".join(texts) + "\n"
        codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
        borders = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1) - 1
        texts_at = np.concatenate(([0], borders + 1))
        starts, ends = self._cut(texts, joined, codes, borders)

        single = self._token[codes[starts]]
        known = (single >= 0) & (ends - starts == 1)
        numbers = self._look_up(joined, starts[~known], ends[~known])
        counts = np.ones(len(starts), dtype=np.int64)
        counts[~known] = self._counts[numbers]
        by_table = np.repeat(known, counts)
        ids = np.empty(len(by_table), dtype=np.int32)
        ids[by_table] = single[known]
        ids[~by_table] = self._ids[_ranges(self._offsets[numbers], self._counts[numbers])]
        tokens_before = np.concatenate(([0], np.cumsum(counts)))[np.searchsorted(starts, texts_at)]
        return ids, np.diff(tokens_before).astype(np.int32)

    def _cut(self, texts: Sequence[str], joined: str, codes: Codes, borders: Places) -> tuple[Places, Places]:
        """Where the pieces start and end."""
        begins, empty, strange = self._cutter(codes, borders)
        for number in self._uncut(texts, joined, strange, borders):
            stop = borders[number]
            start = stop - len(texts[number])
            begins[start:stop] = empty[start:stop] = False
            begins[start] = True
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(codes))
        kept = ~empty[starts]
        return starts[kept], ends[kept]

    def _uncut(self, texts: Sequence[str], joined: str, strange: Mask, borders: Places) -> Iterable[int]:
        """The texts that are beyond the rules, or hold an added token, which comes before all rules."""
        uncut = set(np.searchsorted(borders, np.flatnonzero(strange)).tolist())
        for added in self._added:
            if added in joined:
                uncut.update(number for number, text in enumerate(texts) if added in text)
        return uncut

    def _look_up(self, joined: str, starts: Places, ends: Places) -> Places:
        """For each piece its place in `_counts` and `_offsets`; new ones are learned first."""
        pieces = [joined[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        numbers = np.fromiter(map(self._numbers.get, pieces, repeat(-1)), dtype=np.int64, count=len(pieces))
        new = np.flatnonzero(numbers < 0)
        if not len(new):
            return numbers
        if max(len(self._numbers), len(self._counts) // 2) > REMEMBERED or len(self._ids) > MOST_TOKENS:
            self._forget()
            new = np.arange(len(pieces))
        asked = dict.fromkeys(pieces[index] for index in new.tolist())
        self._learn(list(asked))
        for index in new.tolist():
            numbers[index] = self._numbers[pieces[index]]
        for piece in asked:
            if len(piece) > LONGEST:
                del self._numbers[piece]
        return numbers

    def _learn(self, pieces: list[str]) -> None:
        found = self._tokenized(pieces)
        counts = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        first = len(self._counts)
        self._numbers.update(zip(pieces, range(first, first + len(pieces)), strict=True))
        self._offsets = np.concatenate((self._offsets, len(self._ids) + np.cumsum(counts) - counts))
        self._counts = np.concatenate((self._counts, counts))
        self._ids = np.concatenate((self._ids, np.fromiter(chain.from_iterable(found), dtype=np.int32)))
        for piece, ids in zip(pieces, found, strict=True):
            if len(piece) == len(ids) == 1:
                self._token[ord(piece)] = ids[0]

    def _tokenized(self, pieces: list[str]) -> list[list[int]]:
        """The ids of each piece. Plain words go many to a text, which costs little more than one of them."""
        plain = [piece for piece in pieces if _is_plain(piece)]
        known: dict[str, list[int]] = {}
        groups = [plain[start : start + TOGETHER] for start in range(0, len(plain), TOGETHER)]
        # A word at either end shows that truncation has cut nothing off.
        texts = [" ".join(("a", *group, "a")) for group in groups]
        joined = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        for group, text, encoding in zip(groups, texts, joined, strict=True):
            words: list[list[int]] = []
            last: int | None = -1  # an added token is of no word
            for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
                if word != last:
                    words.append([])
                    last = word
                words[-1].append(token)
            alike = len(words) == len(group) + 2  # every piece has at least one: so each has one
            if alike and not any(added in text for added in self._added):
                known.update(zip(group, words[1:-1], strict=True))
        others = [piece for piece in pieces if piece not in known]
        alone = self._tokenizer.encode_batch_fast(others, add_special_tokens=False)
        known.update((piece, encoding.ids) for piece, encoding in zip(others, alone, strict=True))
        return [known[piece] for piece in pieces]

    def _forget(self) -> None:
        self._numbers.clear()
        self._offsets, self._counts, self._ids = self._offsets[:0], self._counts[:0], self._ids[:0]


def _is_plain(piece: str) -> bool:
    """Is it surely one word, beside others like it: letters of ASCII, or Chinese characters?"""
    if len(piece) > LONGEST or not piece.isalpha():
        return False
    return piece.isascii() or (min(piece) >= "\u4e00" and max(piece) <= "\u9fa5")


def _ranges(starts: Places, counts: Places) -> Places:
    """The numbers of all ranges, one behind another: of (5, 9) and (2, 1) 5, 6, 9."""
    ends = np.cumsum(counts)
    ranges: Places = np.arange(counts.sum()) + np.repeat(starts - (ends - counts), counts)
    return ranges


def pieces_of(tokenizer: Tokenizer) -> Pieces | None:
    """None where the tokenizer's rules are not known, or where it does not keep to them on a sample."""
    cutter = cutter_of(tokenizer)
    if cutter is None:
        log.info("texts go to the tokenizer whole: its rules are not known to work on pieces")
        return None
    pieces = Pieces(tokenizer, cutter)
    texts = [*HOSTILE, *_vocabulary(tokenizer)]
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for _ in range(2):  # asked, and remembered
        ids, lengths = pieces.ids(texts)
        expected = [list(each.ids) for each in encodings]
        found = [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
        if found != expected:
            log.warning("texts go to the tokenizer whole: its tokens by pieces are others")
            return None
    return pieces


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Texts with all of the vocabulary, for a check, and so that its words are known from the start.

    Its single characters also stand side by side and among letters.
    """
    known = [piece for piece in tokenizer.get_vocab() if not piece.isspace()][: REMEMBERED // 2]
    single = [piece for piece in known if len(piece) == 1]
    return [
        join.join(pieces[start : start + 50])
        for join, pieces in (("", single), ("x", single), (" ", known))
        for start in range(0, len(pieces), 50)
    ]
