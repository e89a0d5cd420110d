"""By the piece, a text has the tokens that its tokenizer makes of it whole, whatever it holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import BertTokenizer

from streamer.backends.torch import location, pieces
from streamer.backends.torch.cutting import cutter_of
from streamer.backends.torch.pieces import HOSTILE, Pieces, pieces_of

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "not", "good", "##ness", "film", "cafe", "café", "na", "##ive", "中国", "##国"]


def bert(**options: Any) -> Tokenizer:
    """BERT's rules over a small vocabulary of both languages."""
    codes = (*range(33, 127), *range(0x4E00, 0x4E80))
    characters = [*map(chr, codes), *"，。！…很好书é😀"]
    vocab = [*SPECIALS, *WORDS, *characters, *(f"##{character}" for character in characters[32:94])]
    found: Tokenizer = BertTokenizer(
        vocab={piece: number for number, piece in enumerate(dict.fromkeys(vocab))}, **options
    ).backend_tokenizer
    return found


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "shipped": lambda: Tokenizer.from_file(str(location.SHIPPED / "sentiment" / "tokenizer.json")),
    "uncased": bert,
    "cased": lambda: bert(do_lower_case=False),
    "cased, no accents": lambda: bert(do_lower_case=False, strip_accents=True),
    "chinese in words": lambda: bert(tokenize_chinese_chars=False),
}


@cache
def both(kind: str) -> tuple[Tokenizer, Pieces]:
    tokenizer = KINDS[kind]()
    found = pieces_of(tokenizer)
    assert found is not None, "the check at load must pass"
    return tokenizer, found


def rows(found: Pieces, texts: list[str]) -> list[list[int]]:
    ids, lengths = found.ids(texts)
    assert ids.dtype == np.int32 and len(ids) == lengths.sum() and len(lengths) == len(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths))[: len(texts)]]


def expected(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


SNIPPETS = [
    *" \t\n\r\u3000\u00a0\u2028\u0085'’‘`´nNtsdm.…,，。!！～~-—_#中国很好书們〇々㐀豈𠀀09½①aAzéÅßİﬁＡ＇ſſ가ｶﾞ",
    *"\u0301\u0308\u0338\u0e33\x00\u00ad\u200b\u200d\ufe0f\ufffd😀👍🏽👎💯💯",
    *(
        "[SEP]",
        "[UNK]",
        "[sep]",
        "##",
        "n't",
        " 's",
        " n't",
        "the",
        "not",
        "goodness",
        "cafe\u0301",
        "中国",
        "国中国",
    ),
    *("中" * 24, "国" * 25, "a" * 41, "." * 7, "x" * 101, "👨‍👩‍👧", "🇩🇪"),
]
TEXTS = st.lists(
    st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=3)), max_size=14).map("".join), max_size=5
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(TEXTS)
def test_every_text_has_the_tokens_of_its_tokenizer(kind: str, texts: list[str]) -> None:
    tokenizer, found = both(kind)
    assert rows(found, texts) == expected(tokenizer, texts)
    assert rows(found, texts) == expected(tokenizer, texts), "and again, from memory"


@pytest.mark.parametrize("kind", KINDS)
def test_known_hard_cases(kind: str) -> None:
    tokenizer, found = both(kind)
    texts = [*HOSTILE, *(f"{text}{other}" for text in HOSTILE for other in HOSTILE)]
    assert rows(found, texts) == expected(tokenizer, texts)


@pytest.mark.parametrize("kind", ["shipped", "uncased"])
def test_usual_texts_are_cut_and_never_asked_for_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KINDS[kind]()
    found = pieces_of(tokenizer)
    assert found is not None
    asked: list[str] = []
    learn = found._learn

    def watch(new: list[str]) -> None:
        asked.extend(new)
        learn(new)

    monkeypatch.setattr(found, "_learn", watch)
    texts = [
        "这本书的内容很好，我和同学都很喜欢！物流也快……",
        "It's not a good film, but the actors do their best.",
    ]
    first = rows(found, texts)
    assert asked and max(map(len, asked)) < 10
    asked.clear()
    assert rows(found, [text for text in texts for _ in range(3)]) == [row for row in first for _ in range(3)]
    assert asked == []


def test_memory_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = bert()
    found = pieces_of(tokenizer)
    assert found is not None
    monkeypatch.setattr(pieces, "REMEMBERED", 50)
    for start in range(0, 400, 20):
        texts = [f"word{number} not{number} good" for number in range(start, start + 20)]
        assert rows(found, texts) == expected(tokenizer, texts)
        assert len(found._numbers) <= 50 + 41
    monkeypatch.setattr(pieces, "MOST_TOKENS", 100)
    long = [" ".join("x" * size for size in range(40, 90))]
    assert rows(found, long) == expected(tokenizer, long)
    assert not any(len(piece) > pieces.LONGEST for piece in found._numbers), "what hardly comes again"
    assert rows(found, ["good"]) == expected(tokenizer, ["good"])
    assert len(found._ids) < 100


def test_long_pieces_without_a_token_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pieces_of(bert())
    assert found is not None
    monkeypatch.setattr(pieces, "REMEMBERED", 50)
    for number in range(300):
        assert rows(found, ["\u200b" * (pieces.LONGEST + 1 + number)]) == [[]]
    assert len(found._counts) <= 2 * 50 + 2


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("most", [10, *range(88, 100), 500])
def test_new_words_have_the_same_tokens_beside_others(direction: str, most: int) -> None:
    """Many go to the tokenizer as one text, of which truncation may cut some off. Some are added ones."""
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("zap", "New York")])
    words = ["".join(letters) for letters in product("nwyz", "aeo", "pqrs")]
    texts = [*words, "New", "York", "azap", "goodness", "中国", "国" * 3]
    alone = expected(tokenizer, texts)
    cutter = cutter_of(tokenizer)
    assert cutter is not None
    tokenizer.enable_truncation(most, direction=direction)
    assert rows(Pieces(tokenizer, cutter), texts) == alone


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("most", range(100, 180, 4))
def test_a_run_that_the_tokenizer_cuts_moves_no_neighbour(direction: str, most: int) -> None:
    """The shipped one cuts letters by 40: a word too many must not make up for one that truncation takes."""
    tokenizer = KINDS["shipped"]()
    words = ["qzxj"[number % 4] * (1 + number % 7) + "kvw" for number in range(60)]
    texts = ["z" * 45, *dict.fromkeys(words), "y" * 80]
    alone = expected(tokenizer, texts)
    cutter = cutter_of(tokenizer)
    assert cutter is not None
    tokenizer.enable_truncation(most, direction=direction)
    assert rows(Pieces(tokenizer, cutter), texts) == alone


def test_half_a_surrogate_pair_is_an_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        both("uncased")[1].ids(["good", "\ud83d"])


def test_a_tokenizer_whose_rules_are_not_known_is_left_alone() -> None:
    bytes_ = Tokenizer(models.BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert pieces_of(bytes_) is None
    added = bert()
    added.add_tokens([AddedToken("goodness", normalized=True)])
    assert cutter_of(added) is None, "looked for in the normalized text: 'GOODNESS' is one too"


def test_rules_that_are_not_kept_are_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if BERT cut words at every letter e."""
    right = cutter_of(bert())
    assert right is not None

    def wrong(codes: Any, borders: Any) -> Any:
        cuts = right(codes, borders)
        cuts.begins[codes == ord("e")] = True
        return cuts

    monkeypatch.setattr(pieces, "cutter_of", lambda _: wrong)
    with caplog.at_level(logging.WARNING):
        assert pieces_of(bert()) is None
    assert "texts go to the tokenizer whole: its tokens by pieces are others" in caplog.text
