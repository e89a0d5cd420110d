"""The model alone: streamer's batches against the Hugging Face pipeline, on real texts.

    python -m bench.inference --texts reviews.csv.gz --model base --vocabulary 21128

`--model` is anything that model.name may be, or `base`: random weights in the shape of BERT-base, which
compute as much as trained ones, and a WordPiece vocabulary of that many entries, learned from the texts.
Every case tokenizes, infers and names the labels. A case is a precision, with `+int8` to quantize and
`openvino:` before it to have OpenVINO run the layers. They take turns after one untimed turn each; figures
are medians, ratios are to the pipeline one by one.
`--list` shows each text whose label is not the pipeline's, with both scores. `--processor-time` counts
the seconds of all cores together, which other programs hardly change.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

from streamer.backends.torch import TorchBackend, location  # before torch: it sets what OpenMP reads

import torch  # isort: skip
import transformers
from tokenizers import BertWordPieceTokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)

from bench.topics import read_texts
from streamer.ledger import Lane
from streamer.planner import plan
from streamer.records import Classification, Encoding, Job, Record
from streamer.settings.compute import Batching
from streamer.sizing import TokenBudget

WINDOW, FIXED = 512, 32
MAX_TEXTS = Batching().max_texts

Answer = tuple[str, float]
Case = Callable[[Sequence[str]], list[Answer]]


class Line:
    """What the engine does with a window of texts, without the engine. Keeps count of tokens."""

    def __init__(self, folder: Path, case: str) -> None:
        runtime, _, numbers = case.rpartition(":")
        precision, _, quantize = numbers.partition("+")
        # Labels are compared below, by all texts: the gate at load need not.
        self.backend = TorchBackend.load(
            str(folder),
            device="cpu",
            runtime=runtime or "torch",
            precision=precision,
            quantize=quantize or "none",
            max_drift=1.0,
        )
        self.backend.warm_up()
        self.budget = TokenBudget(
            max_texts=MAX_TEXTS, max_tokens=16_384, max_latency=1.0, adaptive=True, cost=self.backend.cost
        )
        self.tokens = self.computed = 0

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        jobs: list[Job] = []
        answers: dict[int, Answer] = {}
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            fresh = jobs_of(self.backend, window)
            jobs += fresh
            for batch in plan(fresh, self.budget):
                started = time.perf_counter()
                values = self.backend.infer(batch.jobs)
                self.budget.observe(batch, time.perf_counter() - started)
                self.computed += batch.tokens
                for job, value in zip(batch.jobs, values, strict=True):
                    found = cast(Classification, value)
                    answers[id(job)] = found.label, found.score
        self.tokens += sum(job.tokens for job in jobs)
        return [answers[id(job)] for job in jobs]


RECORD = Record("texts.in", 0, 0, 0, None, None, [])


class Encodes(Protocol):
    """A backend, or what it encodes with."""

    def encode(self, texts: Sequence[str]) -> Sequence[Encoding | Exception]: ...


def jobs_of(encoder: Encodes, texts: Sequence[str]) -> list[Job]:
    """What the engine makes of texts, of those that the model takes."""
    return [
        Job(RECORD, cast(Lane, None), 0, text=text, tokens=encoding.tokens, encoded=encoding.data)
        for text, encoding in zip(texts, encoder.encode(texts), strict=True)
        if isinstance(encoding, Encoding)
    ]


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--model", default="sentiment", help="a model's folder or name, or `base`")
    parser.add_argument("--count", type=int, default=512, help="texts in a turn")
    parser.add_argument("--cases", nargs="+", default=["fp32", "bf16", "bf16+int8"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=21_128, help="entries, for --model base")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that is not idle")
    parser.add_argument("--list", action="store_true", help="show the labels that differ")
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()

    texts = list(read_texts(args.texts, args.count))
    random.Random(1).shuffle(texts)
    with TemporaryDirectory() as scratch:
        if args.model == "base":
            folder = save_base(Path(scratch), read_texts(args.texts, 5_000), args.vocabulary)
        else:
            folder = location.locate(args.model).folder
        lines = {f"streamer {case}": Line(folder, case) for case in args.cases}
        one, batched = pipelines(folder, next(iter(lines.values())).backend.max_length)
        cases: dict[str, Case] = {
            "pipeline, one by one": one,
            f"pipeline, fixed {FIXED}, as they come": batched,
            **lines,
        }
        answers = {name: case(texts) for name, case in cases.items()}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(args.repeats):
            for name, case in cases.items():
                started = clock()
                case(texts)
                seconds[name].append(clock() - started)
    report(answers, seconds, lines)
    if args.list:
        show_differences(answers)


def report(answers: dict[str, list[Answer]], seconds: dict[str, list[float]], lines: dict[str, Line]) -> None:
    """A row for each case: rate, ratio, and how many labels differ from the pipeline's."""
    reference, *_ = answers
    count = len(answers[reference])
    print(f"{'case':32} {'texts/s':>8} {'ratio':>6} {'tokens/s':>9} {'computed':>9} {'differ':>7}")
    for name, found in answers.items():
        rate = count / median(seconds[name])
        ratio = median(seconds[reference]) / median(seconds[name])
        row = f"{name:32} {rate:8,.1f} {ratio:6.2f}"
        if line := lines.get(name):
            turns = len(seconds[name]) + 1
            row += f" {rate * line.tokens / turns / count:9,.0f} {line.computed / line.tokens:9.3f}"
        else:
            row += f" {'':9} {'':9}"
        print(f"{row} {len(differences(found, answers[reference])):7}")
    for name, line in lines.items():
        facts = line.backend.describe()
        said = ", ".join(facts[key] for key in ("precision", "attention", "path"))
        print(f"{name}: {said}, quantize {facts['quantize']}, budget {line.budget.tokens} tokens")


def differences(found: list[Answer], expected: list[Answer]) -> list[int]:
    """The numbers of the texts whose labels are not the same."""
    return [
        number for number, (one, other) in enumerate(zip(found, expected, strict=True)) if one[0] != other[0]
    ]


def show_differences(answers: dict[str, list[Answer]]) -> None:
    reference, *others = answers
    for name in others:
        for number in differences(answers[name], answers[reference]):
            (label, score), (was, before) = answers[name][number], answers[reference][number]
            print(f"{name}: text {number} is {label} {score:.4f}, was {was} {before:.4f}")


def pipelines(folder: Path, max_length: int) -> tuple[Case, Case]:
    """The text-classification pipeline in float32, one text a call and `FIXED` a call."""
    pipe: Any = transformers.pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device="cpu",
    )
    cut = {"truncation": True, "max_length": max_length}

    def one(texts: Sequence[str]) -> list[Answer]:
        return [(found["label"], found["score"]) for text in texts for found in pipe(text, **cut)]

    def fixed(texts: Sequence[str]) -> list[Answer]:
        return [(found["label"], found["score"]) for found in pipe(list(texts), batch_size=FIXED, **cut)]

    return one, fixed


def save_base(folder: Path, texts: Iterable[str], vocabulary: int) -> Path:
    """BERT-base with random weights, and a tokenizer like its own."""
    wordpiece = BertWordPieceTokenizer()
    wordpiece.train_from_iterator(texts, vocab_size=vocabulary, show_progress=False)
    words = wordpiece.get_vocab()
    # Few texts have few words; the table of embeddings is as large as it would be.
    words |= {f"[unused{number}]": number for number in range(len(words), vocabulary)}
    BertTokenizer(vocab=words, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(vocab_size=vocabulary, id2label={0: "negative", 1: "positive"})
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
