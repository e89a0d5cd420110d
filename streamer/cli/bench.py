"""`streamer bench`: how fast your model is on your texts, here."""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from streamer import __version__
from streamer.cli import rows
from streamer.cli.options import add_config, load_config, positive, rate, seconds
from streamer.errors import ConfigurationError, UsageError
from streamer.settings import Config

if TYPE_CHECKING:
    from streamer.bench.line import Line
    from streamer.bench.report import Report
    from streamer.bench.turns import Case

NAME = "bench"
HELP = "measure your model on your texts: alone, from Kafka to Kafka, and against the Hugging Face pipeline"

ALONE, FIXED, LINE = "streamer alone", "streamer, fixed 32", "Kafka to Kafka"
PIPELINE, BATCHED = "pipeline, 1 by 1", "pipeline, fixed 32"
LOAD = 0.8  # of what it can do: where the second latency is taken
WIDTH = 110  # of the tables, where no terminal says


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="texts: lines, JSON lines or CSV, plain or gzip")
    add_config(parser)
    parser.add_argument(
        "--format", choices=get_args(rows.Format), help="by default from the file's extension"
    )
    parser.add_argument("--text-field", default="text", metavar="NAME", help="column of the text (text)")
    parser.add_argument("--count", type=positive, default=1024, metavar="N", help="texts in a turn (1024)")
    parser.add_argument("--repeats", type=positive, default=3, metavar="N", help="turns of each case (3)")
    parser.add_argument("--no-pipeline", action="store_true", help="leave the Hugging Face pipeline out")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--end-to-end", action="store_true", help="also through the configured Kafka and Redis"
    )
    where.add_argument(
        "--embedded", action="store_true", help="also through an embedded Kafka, which is not a real one"
    )
    parser.add_argument(
        "--rate", type=rate, nargs="*", default=[50.0], metavar="N", help="texts/s to take latencies at (50)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=10.0, metavar="S", help="how long at each rate (10)"
    )
    parser.add_argument(
        "--peak", type=rate, metavar="TFLOPS", help="of the device, for the MFU (known, or measured)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all of it as JSON; - to standard output"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it (PNG); needs streamer[bench]")


def run(args: argparse.Namespace) -> int:
    """Measure, and show a table. Raises Incomplete when a case loses a text."""
    import msgspec

    from streamer.bench import plot, report
    from streamer.cli.console import Console

    if args.plot is not None:
        plot.require()
    config = load_config(args)
    console = Console(stderr=str(args.json) == "-", highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    texts = _texts(args, console)
    found = _measure(args, config, texts, console)
    console.print(report.table(found))
    if found.latencies:
        console.print(report.latency_table(found))
    console.print(f"{found.machine}, {found.date}; peak {found.peak / 1e12:.2f} TFLOP/s, {found.peak_from}")
    if args.embedded:
        console.print(
            "[bold red]The broker was librdkafka's in-process stand-in: no disk, no replicas, no network. "
            "These are not figures of a real Kafka.",
            soft_wrap=True,
        )
    if args.json is not None:
        written = msgspec.json.format(msgspec.json.encode(found), indent=1)
        if str(args.json) == "-":
            sys.stdout.write(written.decode() + "\n")
        else:
            args.json.write_bytes(written + b"\n")
    if args.plot is not None:
        plot.draw(found, args.plot)
    return 0


def _measure(args: argparse.Namespace, config: Config, texts: list[str], console: Any) -> Report:
    from streamer.app import load_backend, model_folder, new_budget
    from streamer.bench import arithmetic
    from streamer.bench.alone import Alone
    from streamer.bench.report import Report, figure
    from streamer.bench.turns import take_turns

    backend = load_backend(config)
    model = backend.describe()
    torch = "device" in model  # the stand-in has none, and no pipeline
    device, precision = str(model.get("device", "cpu")).partition(" ")[0], str(model.get("precision", ""))
    folder = model_folder(config) if torch else None
    alone = Alone(backend, partial(new_budget, config, backend), window=config.window.max_records)
    fixed = Alone(backend, partial(new_budget, config, backend), window=config.window.max_records)
    cases: dict[str, Case] = {ALONE: alone, FIXED: fixed.fixed}
    if folder is not None and not args.no_pipeline:
        from streamer.bench.pipeline import Pipeline

        pipeline = Pipeline(folder, device, int(model["max_length"]))
        cases = {PIPELINE: pipeline.one_by_one, BATCHED: pipeline.fixed, **cases}
    latencies = []
    with ExitStack() as stack:
        line = stack.enter_context(_line(args, config)) if args.end_to_end or args.embedded else None
        warming: dict[str, Case] = {}
        if line is not None:
            cases[LINE], warming[LINE] = line.throughput, line.warm_up
        turns = take_turns(cases, texts, args.repeats, warming=warming, said=partial(_say, console))
        if line is not None:
            full = len(texts) / sorted(turn.seconds for turn in turns[LINE])[args.repeats // 2]
            for wanted in [*args.rate, LOAD * full]:
                _say(console, f"latency at {wanted:,.0f} texts/s")
                latencies.append(line.latency(texts, wanted, args.seconds, full))
    known = args.peak * 1e12 if args.peak else arithmetic.known_peak(str(model.get("device", "")))
    peak = known or (arithmetic.measured_peak(device, precision) if torch else 1.0)
    peak_from = "given" if args.peak else "its data sheet" if known else "a large multiplication, measured"
    first = turns[ALONE][0]
    return Report(
        date=date.today().isoformat(),
        machine=_machine(),
        command=_command(args),
        streamer=__version__,
        model=model,
        texts=len(texts),
        tokens=round(first.tokens / len(texts), 2),
        characters=round(sum(map(len, texts)) / len(texts), 2),
        peak=round(peak),
        peak_from=peak_from if torch else "none",
        figures=[figure(name, taken, folder, peak) for name, taken in turns.items()],
        broker="" if line is None else "an embedded broker" if args.embedded else "a real broker",
        latencies=latencies,
    )


@contextmanager
def _line(args: argparse.Namespace, config: Config) -> Iterator[Line]:
    """The configured Kafka and Redis, or embedded ones for as long as it lasts."""
    from confluent_kafka import KafkaException

    from streamer.app import kafka_settings
    from streamer.bench.line import Line
    from streamer.cli import clients

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        environment = {}
        if args.embedded:
            from streamer.embedded.broker import EmbeddedBroker
            from streamer.embedded.redis import EmbeddedRedis

            client: dict[str, Any] = {
                "bootstrap.servers": stack.enter_context(EmbeddedBroker()).bootstrap_servers
            }
            environment["STREAMER__KAFKA__BOOTSTRAP_SERVERS"] = client["bootstrap.servers"]
            environment["STREAMER__REDIS__URL"] = stack.enter_context(EmbeddedRedis()).url
        else:
            client = kafka_settings(config, {})
            clients.describe_cluster(clients.admin(config), config)
        try:
            yield stack.enter_context(Line(client, args.config, environment, scratch, embedded=args.embedded))
        except KafkaException as error:
            raise ConfigurationError(f"kafka.properties: {error.args[0].str()}") from None


def _texts(args: argparse.Namespace, console: Any) -> list[str]:
    """The file's texts in an order of their own, from the start again when there are too few."""
    format = args.format or rows.format_of(args.file)
    with rows.opened(args.file) as (contents, _):
        found = [
            row.text
            for row in rows.read(contents, format, rows.Fields(args.text_field), args.file)
            if isinstance(row, rows.Row)
        ]
    if not found:
        raise UsageError(f"{args.file} holds no texts")
    random.Random(1).shuffle(found)
    count: int = args.count
    if len(found) < count:
        _say(console, f"{args.file} holds {len(found):,} texts: they are repeated to make {count:,}")
    return (found * (count // len(found) + 1))[:count]


def _command(args: argparse.Namespace) -> str:
    """What was asked for, without the folders of this machine."""
    words = ["streamer", "bench", Path(args.file).name, "--count", args.count, "--repeats", args.repeats]
    if args.config is not None:
        words += ["--config", args.config.name]
    words += ["--no-pipeline"] if args.no_pipeline else []
    if args.end_to_end or args.embedded:
        words += ["--end-to-end" if args.end_to_end else "--embedded", "--seconds", f"{args.seconds:g}"]
        words += ["--rate", *(f"{wanted:g}" for wanted in args.rate)]
    return shlex.join(map(str, words))


def _machine() -> str:
    """Its processor and how much of it is ours."""
    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:  # Linux says more
        names = (line.partition(": ")[2].strip() for line in lines if line.startswith("model name"))
        name = next(names, name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {name}"


def _say(console: Any, what: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')} {what}")
