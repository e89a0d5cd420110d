"""Does the budget find the best batch size? A sweep over fixed budgets and the search, window by window.

    python -m bench.sizing --texts reviews.csv.gz --model sentiment --characters 50 500

`--model` is anything that model.name may be, or `base`: random weights in the shape of BERT-base. Each window
of the texts goes through every fixed budget and the search before the next window does: what the machine does
beside it, for half a second or a minute, falls on all of them. It only ever adds: of several passes, the best
of each window counts. The search starts every pass cold, or goes on from the pass before.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.topics import read_texts
from streamer.app import load_backend
from streamer.bench.alone import Alone
from streamer.records import Encoding
from streamer.settings import Config
from streamer.settings.compute import Batching, Model
from streamer.sizing import TokenBudget

BATCHING = Batching()
WINDOW = 512  # texts
COLD, WARM = "auto, cold", "auto, going on"
LIMIT = 50_000  # texts read
VOCABULARY = 21_128  # of the tokenizer that `base` gets: as many as Chinese BERTs have
SIZES = [512 << step for step in range(6)]


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--model", default="sentiment", help="a model's folder or name, or `base`")
    parser.add_argument("--characters", type=int, nargs=2, default=(1, 10_000), metavar=("MIN", "MAX"))
    parser.add_argument("--count", type=int, default=8192, help="texts in a turn")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="the fixed budgets, in tokens")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    shortest, longest = args.characters
    texts = [
        text for text in dict.fromkeys(read_texts(args.texts, LIMIT)) if shortest <= len(text) <= longest
    ]
    random.Random(1).shuffle(texts)
    texts = (texts * (args.count // len(texts) + 1))[: args.count]
    with TemporaryDirectory() as scratch:
        name = args.model
        if name == "base":
            from bench.inference import save_base

            name = str(save_base(Path(scratch), texts[:5_000], VOCABULARY))
        # Nobody reads the labels here, and those of random weights are a matter of the last digit.
        backend = load_backend(Config(model=Model(name=name, device="cpu", max_drift=1.0)))

    def alone(tokens: int, *, adaptive: bool) -> Alone:
        budget = partial(
            TokenBudget,
            max_texts=BATCHING.max_texts,
            max_tokens=tokens,
            max_latency=BATCHING.max_latency_ms / 1000,
            adaptive=adaptive,
            cost=backend.cost,
        )
        return Alone(backend, budget, window=WINDOW)

    cases = {f"fixed {size}": alone(size, adaptive=False) for size in args.sizes}
    cases |= {name: alone(BATCHING.max_tokens, adaptive=True) for name in (COLD, WARM)}
    passes: dict[str, list[list[float]]] = {name: [] for name in cases}
    ended: dict[str, list[int]] = {name: [] for name in cases}
    for case in cases.values():
        case(texts[: 4 * WINDOW])  # first calls choose kernels
    for _ in range(args.repeats):
        cases[COLD] = alone(BATCHING.max_tokens, adaptive=True)
        for name, seconds in one_pass(cases, texts).items():
            passes[name].append(seconds)
            ended[name].append(cases[name].budget.tokens)
    rates = {name: len(texts) / sum(map(min, zip(*seconds, strict=True))) for name, seconds in passes.items()}
    best = max(rates[f"fixed {size}"] for size in args.sizes)
    tokens = sum(found.tokens for found in backend.encode(texts) if isinstance(found, Encoding))
    print(f"{args.model}: {len(texts)} texts of {tokens / len(texts):.0f} tokens, best of {args.repeats}")
    for name, rate in rates.items():
        print(f"{name:15} {rate:8,.1f} texts/s {rate / best:7.1%} of the best fixed; ended at {ended[name]}")


def one_pass(cases: dict[str, Alone], texts: list[str]) -> dict[str, list[float]]:
    """The seconds that each case took for each window; another one begins every time."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for start in range(0, len(texts), WINDOW):
        for name in order:
            started = time.perf_counter()
            cases[name](texts[start : start + WINDOW])
            seconds[name].append(time.perf_counter() - started)
        order.append(order.pop(0))
    return seconds


if __name__ == "__main__":
    main()
