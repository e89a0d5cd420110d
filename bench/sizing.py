"""Does the budget find the best batch size? A sweep over fixed budgets and the search, in turns.

    python -m bench.sizing --texts reviews.csv.gz --model sentiment --characters 50 500

`--model` is anything that model.name may be, or `base`: random weights in the shape of BERT-base. Fixed
budgets and the search from a cold start take turns over the same texts; so does a second pass of the search,
which goes on from where the first has come to. Figures are medians; the first pass has the cost of searching.
"""

from __future__ import annotations

import random
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.topics import read_texts
from streamer.app import load_backend
from streamer.bench.alone import Alone
from streamer.bench.turns import Case, take_turns
from streamer.settings import Config
from streamer.settings.compute import Batching, Model
from streamer.sizing import TokenBudget

BATCHING = Batching()
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

    def budget(tokens: int, *, adaptive: bool) -> TokenBudget:
        return TokenBudget(
            max_texts=BATCHING.max_texts,
            max_tokens=tokens,
            max_latency=BATCHING.max_latency_ms / 1000,
            adaptive=adaptive,
            cost=backend.cost,
        )

    found = Alone(backend, partial(budget, BATCHING.max_tokens, adaptive=True), window=512)
    cases: dict[str, Case] = {
        f"fixed {size}": Alone(backend, partial(budget, size, adaptive=False), window=512)
        for size in args.sizes
    }
    cases |= {"auto, cold": found.cold, "auto, going on": found}
    turns = take_turns(cases, texts, args.repeats)
    rates = {name: median(len(texts) / turn.seconds for turn in taken) for name, taken in turns.items()}
    best = max(rates[f"fixed {size}"] for size in args.sizes)
    tokens = turns["auto, cold"][0].tokens / len(texts)
    print(f"{args.model}: {len(texts)} texts of {tokens:.0f} tokens, medians of {args.repeats}")
    for name, rate in rates.items():
        ended = [turn.budgets[-1][1] for turn in turns[name]]
        print(f"{name:15} {rate:8,.1f} texts/s {rate / best:7.1%} of the best fixed; ended at {ended}")


if __name__ == "__main__":
    main()
