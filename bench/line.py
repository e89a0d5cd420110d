"""Kafka to Kafka, with a stand-in for the model: how much of the device does the line leave unused?

    python -m bench.line --texts reviews.csv.gz

The stand-in sleeps 1 ms a batch and 20 us a text: at batches of 64 no more than 28,070 texts/s can come out.
A second run with a model that costs nothing measures the host path alone. Kafka, Redis and the worker share
the machine. `--delivery at_least_once exactly_once` takes turns and compares; so does `--claims off on`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench import servers
from bench.topics import Measured, Topics, create_topics, measure, publish, read_texts

BATCH = 64
BASE_MS, PER_TEXT_US = 1.0, 20.0
CEILING = BATCH / (BASE_MS / 1e3 + BATCH * PER_TEXT_US / 1e6)
DEVICE = {"base_ms": BASE_MS, "per_text_us": PER_TEXT_US, "per_token_us": 0.0}
NO_DEVICE = {"base_ms": 0.0, "per_text_us": 0.0, "per_token_us": 0.0}
CASES = {"line": DEVICE, "host path": NO_DEVICE}


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    servers.add_arguments(parser)
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--claims", choices=("on", "off"), nargs="+", default=["on"])
    parser.add_argument("--cases", choices=tuple(CASES), nargs="+", default=list(CASES))
    parser.add_argument(
        "--delivery", choices=("at_least_once", "exactly_once"), nargs="+", default=["at_least_once"]
    )
    args = parser.parse_args()

    with servers.running(args) as where:
        source = create_topics(where.bootstrap_servers)
        count = publish(where.bootstrap_servers, source.input, read_texts(args.texts, args.records))
        print(f"{count} texts in {source.input}; the ceiling is {CEILING:,.0f} texts/s")
        rates: dict[tuple[str, str, str], list[float]] = {}
        for repeat in range(args.repeats):
            for delivery, case, claims in product(args.delivery, args.cases, args.claims):
                topics = create_topics(where.bootstrap_servers)
                topics = Topics(source.input, topics.output, topics.dead_letters)
                report = run_streamer(where, topics, CASES[case], delivery, claims=claims == "on")
                found = measure(where.bootstrap_servers, topics)
                check(found, count)
                rates.setdefault((delivery, case, claims), []).append(found.per_second)
                said = f"{found.per_second:8,.0f} texts/s  {json.dumps(report)}"
                print(f"{repeat + 1} {delivery:13} {case:9} claims {claims:3} {said}")
        print(f"medians of {args.repeats}:")
        for (delivery, case, claims), found_rates in rates.items():
            middle = median(found_rates)
            share = f", {middle / CEILING:.0%} of the ceiling" if case == "line" else ""
            first = args.delivery[0], case, args.claims[0]
            ratio = (
                f", {middle / median(rates[first]):.2f} of the first"
                if (delivery, claims) != first[::2]
                else ""
            )
            print(f"{delivery:13} {case:9} claims {claims:3} {middle:8,.0f} texts/s{share}{ratio}")


def run_streamer(
    where: servers.Servers, topics: Topics, device: dict[str, float], delivery: str, *, claims: bool
) -> dict[str, Any]:
    """Run a worker over the input until it is idle; its own report."""
    config = {
        "kafka": {"bootstrap_servers": where.bootstrap_servers, "group_id": f"bench-{time.time_ns()}"},
        "topics": {"input": topics.input, "output": topics.output, "dead_letters": topics.dead_letters},
        "delivery": delivery,
        "redis": {"url": where.redis_url},
        "deduplication": {"enabled": claims},
        "batching": {"sizing": "fixed", "max_texts": BATCH, "max_tokens": 1_000_000},
        "model": {"backend": "fake"},
        "fake": device,
        "log": {"level": "warning"},
    }
    with tempfile.TemporaryDirectory() as folder:
        path, report = Path(folder, "streamer.yaml"), Path(folder, "report.json")
        path.write_text(json.dumps(config))  # JSON is YAML
        subprocess.run([sys.executable, "-m", "bench.worker", str(path), str(report)], check=True)
        answer: dict[str, Any] = json.loads(report.read_text())
    return answer


def check(found: Measured, published: int) -> None:
    """A figure counts only when every text came out, once."""
    if (found.results, found.distinct, found.dead_letters) != (published, published, 0):
        raise SystemExit(f"{published} texts were published; found {found}")


if __name__ == "__main__":
    main()
