"""Where a text may be cut so that its tokens are those of its pieces, one behind another.

Only for tokenizers whose rules are known to work on pieces; a cut that is not made costs time, one too many
would be wrong. So a character is in a piece with its neighbours unless it is known to stand alone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Codes = NDArray[np.uint32]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

SPACES = "\t\n\r \u00a0\u3000"
# What BertNormalizer takes for Chinese, in the basic plane: it puts spaces around each of them.
CHINESE = (range(0x3400, 0x4DC0), range(0x4E00, 0xA000))

# The normalizer and the words of the shipped model's tokenizer, see training/vocabulary.py.
RUNS_NORMALIZER = [
    {"type": "NFKC"},
    {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": False,
        "strip_accents": True,
        "lowercase": True,
    },
    {"type": "Replace", "pattern": {"Regex": "[\u2018\u2019`\u00b4]"}, "content": "'"},
    {"type": "Replace", "pattern": {"Regex": r" +(?=n't\b|'(?:s|re|ve|ll|d|m)\b)"}, "content": ""},
]
RUNS_WORDS = r"\p{Han}{1,24}|(?:(?!\p{Han})[\p{L}\p{M}']){1,40}|\p{N}|([^\p{L}\p{N}\s])\1{0,5}"
RUN = 24


class Cuts(NamedTuple):
    """For each character: does a piece begin with it; is it a piece without tokens; is it beyond the rules,
    so that its text is not to be cut at all?"""

    begins: Mask
    empty: Mask
    strange: Mask


class Cutter(Protocol):
    """The rules of a kind of tokenizer."""

    def __call__(self, codes: Codes, borders: Places) -> Cuts:
        """Cut texts, given as code points, each of them ended by a line break at one of `borders`."""


def cutter_of(tokenizer: Tokenizer) -> Cutter | None:
    """None for a tokenizer of another kind."""
    settings = json.loads(tokenizer.to_str())
    if any(token["normalized"] for token in settings["added_tokens"]):
        return None  # looked for in what the normalizer makes of a text, not in the text
    normalizer, words = settings["normalizer"] or {}, settings["pre_tokenizer"] or {}
    if normalizer.get("type") == "BertNormalizer" and words.get("type") == "BertPreTokenizer":
        return _Words(tokenizer, chinese=normalizer["handle_chinese_chars"])
    vocabulary = tokenizer.get_vocab()
    if normalizer.get("normalizers") == RUNS_NORMALIZER and _is_runs(settings, vocabulary):
        return _Runs(vocabulary)
    return None


class _Words:
    """BERT's: words between white space, punctuation and, where it wants that, Chinese characters."""

    def __init__(self, tokenizer: Tokenizer, *, chinese: bool) -> None:
        self._word = np.ones(0x110000, dtype=np.bool_)
        self._space = np.zeros(0x110000, dtype=np.bool_)
        for space in SPACES:
            self._word[ord(space)], self._space[ord(space)] = False, True
        for code in range(0x10000):
            if unicodedata.category(chr(code)).startswith("P") and _stands_alone(tokenizer, chr(code)):
                self._word[code] = False
        if chinese:
            for codes in CHINESE:
                self._word[codes.start : codes.stop] = False

    def __call__(self, codes: Codes, borders: Places) -> Cuts:
        word = self._word[codes]
        begins = ~word
        begins[1:] |= begins[:-1]
        begins[0] = True
        return Cuts(begins, self._space[codes], np.zeros(len(codes), dtype=np.bool_))


def _stands_alone(tokenizer: Tokenizer, character: str) -> bool:
    """Asked of the tokenizer: it may know another version of Unicode than Python does."""
    words = tokenizer.pre_tokenizer.pre_tokenize_str(f"a{character}a")
    return [word for word, _ in words] == ["a", character, "a"]


# Kinds of characters, for _Runs.
STRANGE, SPACE, LETTER, DIGIT, SIGN, HAN = range(6)


class _Runs:
    """The shipped model's: runs of Chinese characters, of letters and of equal signs.

    A run of Chinese characters is cut once more, between two that are neighbours in no piece of the
    vocabulary: the longest match cannot reach across. What is not in the tables below makes a text strange.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._kind = np.full(0x110000, STRANGE, dtype=np.uint8)
        # Neighbours that are alike in this, and not 0, are of one run.
        self._run = np.zeros(0x110000, dtype=np.uint32)
        self._set(SPACE, map(ord, SPACES))
        self._set(DIGIT, range(ord("0"), ord("9") + 1))
        letters = [code for code in range(128) if chr(code).isalpha()]
        apostrophes = [*map(ord, "'`\u2018\u2019")]
        self._set(LETTER, [*letters, *apostrophes], run=1)
        self._apostrophe = np.zeros(0x110000, dtype=np.bool_)
        self._apostrophe[apostrophes] = True
        self._set(HAN, range(0x4E00, 0x9FA6))
        signs = [piece for piece in vocabulary if len(piece) == 1 and unicodedata.category(piece)[0] in "PS"]
        for sign in signs:
            self._add_sign(sign, sign)
        for code in (*range(0xFF01, 0xFF5F), 0x2026):  # the wide forms, and the ellipsis, which is three dots
            plain = unicodedata.normalize("NFKC", chr(code))[0]
            if plain in signs:
                self._add_sign(chr(code), plain)
        pairs = {
            (ord(a), ord(b))
            for piece in vocabulary
            for a, b in pairwise(piece)
            if self._kind[ord(a)] == self._kind[ord(b)] == HAN
        }
        firsts, seconds = np.array(sorted(pairs), dtype=np.uint32).reshape(-1, 2).T
        known = np.union1d(firsts, seconds)
        self._number = np.zeros(0x110000, dtype=np.uint32)
        self._number[known] = np.arange(1, len(known) + 1)
        self._numbers = len(known) + 1
        together = np.zeros(self._numbers**2, dtype=np.bool_)
        together[self._number[firsts] * self._numbers + self._number[seconds]] = True
        self._together = np.packbits(together, bitorder="little")

    def __call__(self, codes: Codes, borders: Places) -> Cuts:
        kinds, runs = self._kind[codes], self._run[codes]
        begins = np.ones(len(codes), dtype=np.bool_)
        begins[1:] = (runs[1:] != runs[:-1]) | (runs[1:] == 0)
        self._join_han(codes, kinds, begins)
        empty = kinds == SPACE
        strange = kinds == STRANGE
        self._join_contractions(codes, kinds, borders, Cuts(begins, empty, strange))
        return Cuts(begins, empty, strange)

    def _set(self, kind: int, codes: Iterable[int], run: int = 0) -> None:
        for code in codes:
            self._kind[code], self._run[code] = kind, run

    def _add_sign(self, sign: str, plain: str) -> None:
        stable = unicodedata.normalize("NFKD", plain) == plain
        if stable and plain != "'" and self._kind[ord(sign)] == STRANGE:
            self._set(SIGN, [ord(sign)], run=ord(plain))

    def _join_han(self, codes: Codes, kinds: NDArray[np.uint8], begins: Mask) -> None:
        han = kinds == HAN
        if not han.any():
            return
        place = np.arange(len(codes))
        # Where the run of a character began: a run goes on after 24 of them as if it were a new one.
        first = np.where(han, 0, place + 1)
        np.maximum.accumulate(first, out=first)
        numbers = self._number[codes]
        pair = numbers[:-1] * self._numbers + numbers[1:]
        together = (self._together[pair >> 3] >> (pair & 7).astype(np.uint8)) & 1
        begins[1:] &= (together == 0) | ((place - first)[1:] % RUN == 0)

    def _join_contractions(self, codes: Codes, kinds: NDArray[np.uint8], borders: Places, cuts: Cuts) -> None:
        """The normalizer drops the space of "it 's" and "do n't", if a word ends there."""
        marks = np.flatnonzero(self._apostrophe[codes])
        if not len(marks):
            return
        n = np.isin(codes[marks - 1], (ord("n"), ord("N"))) & (marks > 0)
        spaces = np.concatenate((marks - 1, marks[n] - 2))
        spaces = spaces[spaces >= 0]
        spaces = spaces[kinds[spaces] == SPACE]
        spaces = np.setdiff1d(spaces, borders)
        if not len(spaces):
            return
        cuts.begins[spaces] = cuts.begins[spaces + 1] = False
        cuts.empty[spaces] = False
        others = np.flatnonzero(kinds != LETTER)
        after = others[np.searchsorted(others, spaces + 1)]
        word_goes_on = np.isin(kinds[after], (HAN, DIGIT)) | (codes[after] == ord("_"))
        several = (spaces == 0) | (kinds[spaces - 1] == SPACE)
        cuts.strange[spaces[word_goes_on | several]] = True


def _is_runs(settings: Any, vocabulary: Iterable[str]) -> bool:
    """Is the rest as the shipped one has it, and no Chinese character that is unknown where it is not alone?

    An unknown one would make its whole run unknown, cut or not.
    """
    match settings["pre_tokenizer"], settings["model"]:
        case (
            {
                "pretokenizers": [
                    {"pattern": {"Regex": words}, "behavior": "Removed", "invert": True},
                    {"pattern": {"Regex": alone}, "behavior": "Isolated", "invert": False},
                ]
            },
            {"type": "WordPiece", "continuing_subword_prefix": "", "max_input_chars_per_word": longest},
        ):
            together = re.fullmatch(r"\[\^((?:\\.|[^\\\[\]&-])+)\]", alone)
            known = set(vocabulary)
            return bool(
                words == RUNS_WORDS
                and longest >= RUN
                and together
                and all(character in known for character in together[1] if 0x4E00 <= ord(character) < 0x9FA6)
            )
    return False
