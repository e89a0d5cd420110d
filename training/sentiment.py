"""Trains the bilingual sentiment classifier from scratch.

python -m training.sentiment --data DIR --out streamer/models/sentiment --seed 7
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from training import lexicon, plain
from training.corpus import Review, Splits, read_splits
from training.network import Text, accuracies, configuration, fine_tune, predict
from training.ngrams import NgramTeacher
from training.vocabulary import MAX_LENGTH, Encoder, save_tokenizer, train_tokenizer

VOCABULARY = 16_000
ENGLISH_VOCABULARY = 6_000
FOLDS = {"zh": 3, "en": 8}
DECAY = {"zh": 0.3, "en": 0.1}
# How much of a training label is the label of the data; the rest is a teacher's that has not seen the text.
TRUST = {"zh": 0.5, "en": 0.5}


class Teacher:
    """Linear teachers of one language: each text is judged by one that was fitted without it."""

    def __init__(
        self, language: str, texts: Sequence[list[str]], positive: Tensor, extra: dict[str, float]
    ) -> None:
        self._teachers: list[NgramTeacher] = []
        folds = FOLDS[language]
        added = [text.split("\t") for text in extra]
        for fold in range(folds):
            kept = [index for index in range(len(texts)) if index % folds != fold]
            teacher = NgramTeacher(language == "zh", DECAY[language], least=2 if language == "zh" else 1)
            goals = torch.cat((positive[kept], torch.tensor(list(extra.values()))))
            self._teachers.append(teacher.fit([texts[index] for index in kept] + added, goals))

    def judge(self, texts: Sequence[list[str]], origins: Sequence[int]) -> list[float]:
        """How likely each text is positive; `origins` are the training texts that they are made of."""
        found = [0.0] * len(texts)
        for fold, teacher in enumerate(self._teachers):
            mine = [index for index, origin in enumerate(origins) if origin % len(self._teachers) == fold]
            odds = teacher.odds([texts[index] for index in mine])
            for index, value in zip(mine, torch.sigmoid(odds).tolist(), strict=True):
                found[index] = value
        return found


class Source:
    """The training texts of one language, and variations of them with the teacher's labels."""

    def __init__(
        self, language: str, reviews: Sequence[Review], encoder: Encoder, extra: dict[str, float]
    ) -> None:
        self.texts = [encoder.words(review.text) for review in reviews]
        self.extra = [Text(encoder.words(text), 0.1 + 0.8 * value) for text, value in extra.items()]
        positive = torch.tensor([review.positive for review in reviews])
        known = {"\t".join(encoder.words(text)): value for text, value in extra.items()}
        self._teacher = Teacher(language, self.texts, positive, known)
        judged = self._teacher.judge(self.texts, range(len(self.texts)))
        trust = TRUST[language]
        self.goals = [
            trust * own + (1 - trust) * soft for own, soft in zip(positive.tolist(), judged, strict=True)
        ]
        agree = [(soft > 0.5) == (own > 0.5) for soft, own in zip(judged, positive.tolist(), strict=True)]
        print(
            f"{language}: the linear teacher agrees with {sum(agree) / len(agree):.4f} of the labels unseen",
            flush=True,
        )

    def originals(self) -> list[Text]:
        """Every text with its label, softened by the teacher."""
        return [Text(words, goal) for words, goal in zip(self.texts, self.goals, strict=True)]

    def _labelled(self, texts: list[list[str]], origins: list[int]) -> list[Text]:
        goals = self._teacher.judge(texts, origins)
        return [Text(words, goal) for words, goal in zip(texts, goals, strict=True)]

    def spans(self, count: int, longest: int, rng: random.Random) -> list[Text]:
        """Pieces of random texts."""
        origins = [rng.randrange(len(self.texts)) for _ in range(count)]
        cuts: list[list[str]] = []
        for origin in origins:
            words = self.texts[origin]
            length = rng.randint(1, max(1, min(len(words), longest)))
            start = rng.randint(0, max(0, len(words) - length))
            cuts.append(words[start : start + length])
        return self._labelled(cuts, origins)

    def exchanges(self, count: int, rng: random.Random) -> list[Text]:
        """Random texts with the words of known polarity exchanged for others of the same polarity."""
        polarity = lexicon.words()
        choices = {value: [word for word in polarity if polarity[word] == value] for value in (0.0, 1.0)}
        origins = [index for index, words in enumerate(self.texts) if any(word in polarity for word in words)]
        chosen = [rng.choice(origins) for _ in range(count)]
        changed = [
            [
                rng.choice(choices[polarity[word]]) if word in polarity and rng.random() < 0.7 else word
                for word in self.texts[origin]
            ]
            for origin in chosen
        ]
        return self._labelled(changed, chosen)


def cropped(texts: list[Text], longest: int, rng: random.Random) -> list[Text]:
    """Most of the very long texts cut to a random part, for speed; one in three stays whole."""
    found: list[Text] = []
    for text in texts:
        words = text.words
        if sum(map(len, words)) > longest and rng.random() < 0.67:
            start = rng.randrange(len(words))
            end, size = start, 0
            while end < len(words) and size < longest:
                size += len(words[end])
                end += 1
            while start > 0 and size < longest:
                start -= 1
                size += len(words[start])
            words = words[start:end]
        found.append(Text(words, text.positive))
    return found


def train_network(
    splits: Splits, encoder: Encoder, vocabulary: int, *, seed: int, epochs: int
) -> BertForSequenceClassification:
    """The whole recipe after the tokenizer: teachers, then distillation."""
    rng = random.Random(seed)
    extra = lexicon.words() | lexicon.phrases()
    chinese = Source("zh", [review for review in splits.train if review.language == "zh"], encoder, {})
    english = Source("en", [review for review in splits.train if review.language == "en"], encoder, extra)
    selected = [encoder.plain(review.text) for review in splits.select]

    def made(sentences: dict[str, float]) -> list[Text]:
        return [Text(encoder.words(text), 0.05 + 0.9 * value) for text, value in sentences.items()]

    def draw(_: int) -> list[Text]:
        return [
            *cropped(chinese.originals(), 120, rng),
            *chinese.spans(12_000, 12, rng),
            *english.originals(),
            *english.originals(),
            *english.spans(6_000, 20, rng),
            *english.exchanges(8_000, rng),
            *english.extra,
            *made(plain.chinese(4_000, rng)),
            *made(plain.english(3_000, rng)),
        ]

    def report(model: torch.nn.Module) -> str:
        found = accuracies(predict(model, selected), splits.select)
        return ", ".join(f"{language} {found[language]['accuracy']:.4f}" for language in ("zh", "en"))

    return fine_tune(
        configuration(vocabulary, 0.15), draw, encoder, seed, epochs=epochs, rate=8e-4, report=report
    )


def save(model: BertForSequenceClassification, folder: Path) -> None:
    """Write the weights as float16; the configuration says to compute in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["BertForSequenceClassification"]
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def check(folder: Path, reviews: Sequence[Review]) -> dict[str, dict[str, float]]:
    """Load the folder as a user would and measure it in float32."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = tokenizer([review.text for review in reviews], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return accuracies(predict(model, rows, exact=True), reviews)


def main() -> None:
    """Train, save, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with the reviews")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--seed", type=int, default=7, help="of everything drawn at random")
    parser.add_argument("--threads", type=int, default=1, help="another number changes the last digits")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training texts")
    options = parser.parse_args()
    begin = time.perf_counter()
    torch.set_num_threads(options.threads)
    splits = read_splits(options.data)
    tokenizer = train_tokenizer(
        [review.text for review in splits.train if review.language == "zh"],
        [review.text for review in splits.train if review.language == "en"],
        [*lexicon.words(), *lexicon.emoji()],
        VOCABULARY,
        ENGLISH_VOCABULARY,
    )
    encoder = Encoder(tokenizer)
    model = train_network(
        splits,
        encoder,
        tokenizer.get_vocab_size(),
        seed=options.seed,
        epochs=options.epochs,
    )
    save(model, options.out)
    save_tokenizer(tokenizer, options.out)
    result = {
        "seed": options.seed,
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "selection": check(options.out, splits.select),
        "held_out": check(options.out, splits.test),
    }
    text = json.dumps(result, indent=2)
    (options.out / "accuracy.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
