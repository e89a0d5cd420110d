"""The model alone: streamer's batches against the Hugging Face pipeline, on real texts.

    python -m bench.inference --texts reviews.csv.gz --model base

`--model` is anything that model.name may be, or `base`: random weights in the shape of BERT-base with the
shipped model's tokenizer, which compute as much as trained ones. Every case tokenizes, infers and names the
labels. The cases take turns after one untimed turn each; figures are medians, ratios are to the pipeline one
by one.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

from streamer.backends.torch import TorchBackend, location  # before torch: it sets what OpenMP reads

import torch  # isort: skip
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from bench.topics import read_texts
from streamer.ledger import Lane
from streamer.planner import plan
from streamer.records import Classification, Encoding, Job, Record
from streamer.sizing import TokenBudget

WINDOW, MAX_TEXTS, FIXED = 512, 64, 32

Case = Callable[[Sequence[str]], list[str]]


class Line:
    """What the engine does with a window of texts, without the engine. Keeps count of tokens."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.backend = TorchBackend.load(str(folder), device="cpu", precision=precision)
        self.backend.warm_up()
        self.budget = TokenBudget(
            max_texts=MAX_TEXTS, max_tokens=16_384, max_latency=1.0, adaptive=True, cost=self.backend.cost
        )
        self.tokens = self.computed = 0

    def __call__(self, texts: Sequence[str]) -> list[str]:
        jobs: list[Job] = []
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            fresh = [
                Job(RECORD, cast(Lane, None), 0, text=text, tokens=found.tokens, encoded=found.data)
                for text, found in zip(window, self.backend.encode(window), strict=True)
                if isinstance(found, Encoding)
            ]
            jobs += fresh
            for batch in plan(fresh, self.budget):
                started = time.perf_counter()
                values = self.backend.infer(batch.jobs)
                self.budget.observe(batch, time.perf_counter() - started)
                self.computed += batch.tokens
                for job, value in zip(batch.jobs, values, strict=True):
                    job.id = cast(Classification, value).label
        self.tokens += sum(job.tokens for job in jobs)
        return [job.id for job in jobs]


RECORD = Record("texts.in", 0, 0, 0, None, None, [])


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--model", default="sentiment", help="a model's folder or name, or `base`")
    parser.add_argument("--count", type=int, default=512, help="texts in a turn")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "auto"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()

    texts = list(read_texts(args.texts, args.count))
    random.Random(1).shuffle(texts)
    with TemporaryDirectory() as scratch:
        folder = save_base(Path(scratch)) if args.model == "base" else location.locate(args.model).folder
        lines = {f"streamer {precision}": Line(folder, precision) for precision in args.precisions}
        one, batched = pipelines(folder, next(iter(lines.values())).backend.max_length)
        cases: dict[str, Case] = {
            "pipeline, one by one": one,
            f"pipeline, fixed {FIXED}, as they come": batched,
            **lines,
        }
        labels = {name: case(texts) for name, case in cases.items()}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(args.repeats):
            for name, case in cases.items():
                started = time.perf_counter()
                case(texts)
                seconds[name].append(time.perf_counter() - started)
    report(labels, seconds, lines)


def report(labels: dict[str, list[str]], seconds: dict[str, list[float]], lines: dict[str, Line]) -> None:
    """A row for each case: rate, ratio, and how many labels differ from the pipeline's."""
    reference, *_ = labels
    count = len(labels[reference])
    print(f"{'case':32} {'texts/s':>8} {'ratio':>6} {'tokens/s':>9} {'computed':>9} {'differ':>7}")
    for name, found in labels.items():
        rate = count / median(seconds[name])
        ratio = median(seconds[reference]) / median(seconds[name])
        differ = sum(label != other for label, other in zip(found, labels[reference], strict=True))
        row = f"{name:32} {rate:8,.1f} {ratio:6.2f}"
        if line := lines.get(name):
            turns = len(seconds[name]) + 1
            row += f" {rate * line.tokens / turns / count:9,.0f} {line.computed / line.tokens:9.3f}"
        else:
            row += f" {'':9} {'':9}"
        print(f"{row} {differ:7}")
    for name, line in lines.items():
        described = line.backend.describe()
        print(
            f"{name}: {described['precision']}, {described['attention']}, budget {line.budget.tokens} tokens"
        )


def pipelines(folder: Path, max_length: int) -> tuple[Case, Case]:
    """The text-classification pipeline in float32, one text a call and `FIXED` a call."""
    pipe: Any = transformers.pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device="cpu",
    )
    cut = {"truncation": True, "max_length": max_length}

    def one(texts: Sequence[str]) -> list[str]:
        return [pipe(text, **cut)[0]["label"] for text in texts]

    def fixed(texts: Sequence[str]) -> list[str]:
        return [found["label"] for found in pipe(list(texts), batch_size=FIXED, **cut)]

    return one, fixed


def save_base(folder: Path) -> Path:
    """BERT-base with random weights and the shipped tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(location.SHIPPED / "sentiment")
    torch.manual_seed(1)
    config = BertConfig(vocab_size=len(tokenizer), id2label={0: "negative", 1: "positive"})
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
