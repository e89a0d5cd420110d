"""Every family of the tests against the pipeline: is there a model for which streamer is the slower one?

    python -m bench.families --texts reviews.csv.gz

The models are those of the unit tests, random weights of a few kilobytes: what is measured is what everything
but the large multiplications costs, and whichever path the family takes. Precision is float32 for both. Cases
take turns after one untimed turn each; figures are medians of `--repeats`, ratios above 1 are streamer's.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.inference import FIXED, Case, Line, pipelines  # before transformers: it sets what OpenMP reads
from bench.topics import read_texts

import transformers  # isort: skip

from tests.tiny_models import save_bert, save_distilbert, save_family, save_roberta
from tests.unit.test_torch_packing import PACKED, PADDED

MODELS: dict[str, Callable[[Path], Path]] = {
    "BERT, WordPiece": save_bert,
    "DistilBERT, WordPiece": save_distilbert,
    "RoBERTa, byte-level BPE": save_roberta,
    **{name: partial(save_family, family=family, **settings) for name, (family, settings) in PACKED.items()},
    **{
        name: partial(save_family, family=family, **settings)
        for name, (family, settings, _) in PADDED.items()
    },
}


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--count", type=int, default=1024, help="texts in a turn")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    texts = list(read_texts(args.texts, args.count))
    random.Random(1).shuffle(texts)
    print(f"| model | path | texts/s | of the pipeline, 1 by 1 | of the pipeline, batches of {FIXED} |")
    print("|---|---|---|---|---|")
    for name, save in MODELS.items():
        with TemporaryDirectory() as scratch:
            measure(name, save(Path(scratch)), texts, args.repeats)


def measure(name: str, folder: Path, texts: list[str], repeats: int) -> None:
    """Print a row of the table."""
    ours = Line(folder, "fp32")
    one, batched = pipelines(folder, ours.backend.max_length)
    cases: dict[str, Case] = {"ours": ours, "one": one, "batched": batched}
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for turn in range(repeats + 1):
        for case, run in cases.items():
            started = time.perf_counter()
            run(texts)
            if turn:
                seconds[case].append(time.perf_counter() - started)
    taken = {case: median(found) for case, found in seconds.items()}
    facts = ours.backend.describe()
    print(
        f"| {name} | {facts['attention']}, {facts['path']} | {len(texts) / taken['ours']:,.0f} "
        f"| {taken['one'] / taken['ours']:.1f} | {taken['batched'] / taken['ours']:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
