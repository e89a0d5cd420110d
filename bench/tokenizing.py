"""Tokenizing alone: by the piece against the tokenizer itself, on real texts.

    python -m bench.tokenizing --texts reviews_zh.csv.gz reviews_en.csv.gz

Half of the texts of a file come first, then the other half is measured, in windows of 512: its pieces are
those that other texts brought, or new. `at first` is the first half, when little more than the vocabulary is
known, and `all known` the second half once more: no word is new, as after a day of texts. The tokenizers
are the shipped model's, and one with BERT's rules and a vocabulary made of the texts:
`chinese` has single characters, `english` the 20,000 most frequent words and all letters. The cases take
turns; figures are medians. Tokens are without special ones; each case ends with int32 arrays, all of them
equal. The clock is the processor's, all threads together: that is what the model does not get.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median

from streamer.backends.torch import location  # before torch: it sets what OpenMP reads

import numpy as np  # isort: skip
from tokenizers import Tokenizer
from transformers import BertTokenizer

from bench.topics import read_texts
from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.pieces import Pieces, pieces_of

WINDOW = 512
Tokenize = Callable[[Sequence[str]], tuple[Tokens, Tokens]]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="CSVs with a column `text`")
    parser.add_argument("--count", type=int, default=50_000, help="different texts of a file at most")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print("| texts | tokenizer | tokens | tokenizer itself | at first | by the piece | all known | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for path in args.texts:
        texts = list(dict.fromkeys(read_texts(path, args.count)))
        random.Random(1).shuffle(texts)
        for name, tokenizer in tokenizers(texts).items():
            measure(f"{path.name} | {name}", texts, tokenizer, args.repeats)


def measure(title: str, texts: Sequence[str], tokenizer: Tokenizer, repeats: int) -> None:
    """Print a row of the table, in millions of tokens for a second of one core."""
    middle = len(texts) // 2
    early, late = windows(texts[:middle]), windows(texts[middle:])
    seconds: dict[str, list[float]] = {"itself": [], "at first": [], "by the piece": [], "all known": []}
    for _ in range(repeats):
        pieces = pieces_of(tokenizer)
        assert isinstance(pieces, Pieces), "the tokenizer's rules are known"
        plain, itself = timed(partial(whole, tokenizer), late)
        first, at_first = timed(pieces.ids, early)
        found, remembered = timed(pieces.ids, late)
        _, all_known = timed(pieces.ids, late)
        assert np.array_equal(plain, found), "the tokens are equal"
        for case, taken in zip(seconds, (itself, at_first, remembered, all_known), strict=True):
            seconds[case].append(taken)
    rates = {case: len(plain) / median(taken) / 1e6 for case, taken in seconds.items()}
    rates["at first"] *= len(first) / len(plain)
    shown = " | ".join(f"{rate:.2f}" for rate in rates.values())
    print(
        f"| {title} | {len(plain):,} | {shown} | {rates['by the piece'] / rates['itself']:.1f} |", flush=True
    )


def windows(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + WINDOW] for start in range(0, len(texts), WINDOW)]


def timed(
    tokenize: Callable[[Sequence[str]], tuple[Tokens, Tokens]], parts: list[Sequence[str]]
) -> tuple[Tokens, float]:
    started = time.process_time()
    found = [tokenize(part)[0] for part in parts]
    return np.concatenate(found), time.process_time() - started


def whole(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tokens, Tokens]:
    found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    lengths = np.fromiter(map(len, found), dtype=np.int32)
    return np.fromiter(chain.from_iterable(encoding.ids for encoding in found), dtype=np.int32), lengths


def tokenizers(texts: Sequence[str]) -> dict[str, Tokenizer]:
    """The shipped one, and one of BERT's that fits the texts."""
    shipped = Tokenizer.from_file(str(location.SHIPPED / "sentiment" / "tokenizer.json"))
    characters = Counter(chain.from_iterable(texts))
    single = [character for character in characters if not character.isspace()]
    inner = [f"##{character}" for character in single if character.isascii()]
    chinese = sum(count for character, count in characters.items() if "\u4e00" <= character <= "\u9fff")
    if chinese > characters.total() // 2:
        return {"shipped": shipped, "chinese": bert([*single, *inner])}
    words = Counter(chain.from_iterable(text.lower().split() for text in texts))
    return {"shipped": shipped, "english": bert([*single, *inner, *dict(words.most_common(20_000))])}


def bert(pieces: Sequence[str]) -> Tokenizer:
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*SPECIALS, *pieces]))}
    found: Tokenizer = BertTokenizer(vocab=vocab).backend_tokenizer
    return found


if __name__ == "__main__":
    print("millions of tokens for a second of one core")
    main()
