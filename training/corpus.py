"""Reading the labelled reviews and splitting them by a hash of their text."""

from __future__ import annotations

import csv
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Review:
    """One labelled text; `positive` is a probability, so that soft labels fit too."""

    text: str
    positive: float
    language: str
    category: str = ""


@dataclass(frozen=True)
class Splits:
    """What is trained on, what settings were chosen on, and what is only reported."""

    train: list[Review]
    select: list[Review]
    test: list[Review]


def bucket(text: str) -> int:
    """A number from 0 to 99 that depends on nothing but the text (white space is ignored)."""
    digest = hashlib.sha256("".join(text.split()).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % 100


def read_reviews(path: Path, language: str) -> list[Review]:
    """The rows of one gzip-compressed CSV file with the columns text, label and perhaps category."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return [
            Review(row["text"], float(row["label"] == "positive"), language, row.get("category") or "")
            for row in csv.DictReader(stream)
        ]


def read_splits(folder: Path) -> Splits:
    """Chinese: buckets 0-4 test, 5-7 select. English: buckets 0-4 select; the dev file is the test."""
    train: list[Review] = []
    select: list[Review] = []
    test = read_reviews(folder / "reviews_en_dev.csv.gz", "en")
    for review in read_reviews(folder / "reviews_zh.csv.gz", "zh"):
        number = bucket(review.text)
        (test if number < 5 else select if number < 8 else train).append(review)
    for review in read_reviews(folder / "reviews_en_train.csv.gz", "en"):
        (select if bucket(review.text) < 5 else train).append(review)
    return Splits(train, select, test)
