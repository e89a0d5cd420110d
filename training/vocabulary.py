"""The tokenizer: one WordPiece vocabulary of Chinese and English pieces, trained on the training texts."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
MAX_LENGTH = 256
# A run of Chinese characters, a word of another script (with its apostrophes), one digit, or a run of one
# sign. The bounds keep the greedy longest match cheap on text without any punctuation.
WORDS = r"\p{Han}{1,24}|(?:(?!\p{Han})[\p{L}\p{M}']){1,40}|\p{N}|([^\p{L}\p{N}\s])\1{0,5}"


def _normalizer() -> normalizers.Normalizer:
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=True
            ),
            normalizers.Replace(Regex("[\u2018\u2019`\u00b4]"), "'"),
            # The English training sentences are written "do n't" and "film 's": join them as people write.
            normalizers.Replace(Regex(r" +(?=n't\b|'(?:s|re|ve|ll|d|m)\b)"), ""),
        ]
    )


def _pieces(texts: Iterable[str], splitter: Tokenizer, size: int, longest: int) -> list[str]:
    """Byte-pair merges over the words of `texts`, most frequent first, no piece above `longest`."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = splitter.normalizer
    learner.pre_tokenizer = splitter.pre_tokenizer
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, min_frequency=3, max_token_length=longest, show_progress=False),
    )
    return [piece for piece, _ in sorted(learner.get_vocab().items(), key=lambda item: item[1])]


def train_tokenizer(
    chinese: Sequence[str], english: Sequence[str], words: Sequence[str], size: int, english_size: int
) -> Tokenizer:
    """A tokenizer of `size` pieces, with `words` whole.

    Characters seen fewer than three times are unknown, each by itself, apart from those in `words`.
    """
    normalizer = _normalizer()
    counts: Counter[str] = Counter()
    for text in (*chinese, *english):
        counts.update(normalizer.normalize_str(text))
    whole = [normalizer.normalize_str(word) for word in words]
    for word in whole:
        counts.update(dict.fromkeys(word, 3))
    alphabet = sorted(char for char, count in counts.items() if count >= 3 and not char.isspace())
    known = "".join(re.escape(char) if char.isascii() else char for char in alphabet)
    tokenizer = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.Split(Regex(f"[^{known}]"), behavior="isolated"),
        ]
    )
    pieces = dict.fromkeys((*SPECIALS, *alphabet, *whole))
    pieces.update(dict.fromkeys(p for p in _pieces(english, tokenizer, english_size, 20) if p not in pieces))
    for piece in _pieces(chinese, tokenizer, 4 * size, 4):
        if len(pieces) == size:
            break
        pieces[piece] = None
    tokenizer.model = models.WordPiece(
        {piece: number for number, piece in enumerate(pieces)},
        unk_token="[UNK]",
        continuing_subword_prefix="",
        max_input_chars_per_word=64,
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


class Encoder:
    """Turns texts into piece numbers as the tokenizer does, or with pieces left out at random.

    Leaving out pieces of the greedy longest match (MaxMatch-Dropout) shows the network every text in many
    segmentations, which matters with training sets as small as these.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._longest = max(map(len, self._vocabulary))

    def words(self, text: str) -> list[str]:
        """The normalised words of `text`, before they are cut into pieces."""
        normal = self._tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def plain(self, text: str) -> list[int]:
        """The piece numbers of `text`, with [CLS] and [SEP], cut at the longest input."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids if len(ids) <= MAX_LENGTH else [*ids[: MAX_LENGTH - 1], SEP]

    def varied(self, words: Sequence[str], rate: float, rng: random.Random) -> list[int]:
        """The same for words, where the greedy match passes over a longer piece at the given rate."""
        ids = [CLS]
        vocabulary, chance = self._vocabulary, rng.random
        for word in words:
            start, length = 0, len(word)
            while start < length:
                end = min(length, start + self._longest)
                while end > start + 1 and (word[start:end] not in vocabulary or chance() < rate):
                    end -= 1
                ids.append(vocabulary.get(word[start:end], UNK))
                start = end
            if len(ids) >= MAX_LENGTH:
                return [*ids[: MAX_LENGTH - 1], SEP]
        ids.append(SEP)
        return ids
