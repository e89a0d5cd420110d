"""The demo: broker, Redis and worker as processes of their own, records in, results out, and the account.

The worker is the very command that a user runs, `streamer run --config FILE`. Nothing here reaches into it:
the demo publishes, reads the two topics that come out, and looks at what the worker's group has committed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console

from streamer.config import load
from streamer.embedded.broker import EmbeddedBroker
from streamer.embedded.display import Counters, Display, Scored, account, line, table
from streamer.embedded.process import ChildProcess
from streamer.embedded.redis import EmbeddedRedis
from streamer.embedded.tally import count
from streamer.embedded.texts import DemoRecord, demo_records
from streamer.embedded.traffic import Collector, Group, Publisher, create_topics, delete_group, reported
from streamer.errors import StartupError, StreamerError, TransientError
from streamer.redaction import without_credentials
from streamer.settings.transport import Topics

# Published and not yet committed. The embedded broker forgets above 5 MB a partition, and no record of the
# demo is larger than 1.2 KB: so this many fit even if all fell into one partition.
MAX_LAG = 2000
# Seconds without progress after which the demo gives up; the first result waits for imports and model too.
PATIENCE, PATIENCE_AT_START = 60.0, 180.0
# What the worker may take from the environment here: all else is the demo's to say.
PASSED_ON = ("MODEL__", "FAKE__", "BATCHING__", "WINDOW__")
# The worker's own, which the demo ends with too.
EXIT_CODES = range(2, 7)


class WorkerEnded(StreamerError):
    """The worker ended before the demo did."""

    def __init__(self, code: int, detail: str) -> None:
        self.exit_code = code if code in EXIT_CODES else 1
        super().__init__(detail)


class NoProgress(StreamerError):
    """The worker runs, but nothing comes out of it."""


class Line(NamedTuple):
    """The worker, and the demo's hands on both ends of it."""

    publisher: Publisher
    collector: Collector
    group: Group
    worker: ChildProcess


@dataclass(frozen=True, slots=True)
class Options:
    count: int = 3000
    seed: int = 1
    bootstrap_servers: str | None = None
    redis: str | None = None
    model: str | None = None
    serve: bool = False


def run_demo(options: Options, console: Console) -> int:
    """Run all of it; 0 when every record is accounted for, 1 when not. Raises StreamerError."""
    run = uuid.uuid4().hex[:8]
    topics, group = Topics(), f"streamer-demo-{run}"
    records = list(demo_records(options.count, options.seed, f"demo-{run}"))
    embedded = options.bootstrap_servers is None
    environment = _environment(embedded)
    model = environment.pop("STREAMER__MODEL__NAME", "sentiment")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-demo-")))
        console.print("starting Kafka, Redis and the worker ...")
        servers = options.bootstrap_servers or stack.enter_context(EmbeddedBroker()).bootstrap_servers
        redis = options.redis or stack.enter_context(EmbeddedRedis()).url
        client = {**load(None, environment).kafka.properties, "bootstrap.servers": servers}
        with reported(servers, StartupError):
            created = create_topics(client, topics, embedded)
            watched = stack.enter_context(closing(Group(client, topics.input, group)))
            collector = stack.enter_context(closing(Collector(client, topics, group)))
            publisher = stack.enter_context(closing(Publisher(client, topics.input)))
        if created and not embedded:
            console.print(f"created the topics {', '.join(created)}")
        config = {
            "kafka": {"bootstrap_servers": servers, "group_id": group},
            "redis": {"url": redis},
            "model": {"name": options.model or model},
            "log": {"format": "text"},
        }
        file, log = folder / "streamer.yaml", folder / "worker.log"
        file.write_text(yaml.safe_dump(config), "utf-8")
        command = [sys.executable, "-m", "streamer", "run", "--config", str(file)]
        worker = stack.enter_context(ChildProcess(command, log, env=environment))
        console.print(f"Kafka at {servers}, Redis at {without_credentials(redis)}")
        try:
            with reported(servers, TransientError):
                _work(records, Line(publisher, collector, watched, worker), console)
            tally = count(publisher.published, collector.results, collector.dead, collector.again)
            console.print(table(tally))
            console.print(account(tally), style="" if tally.complete else "bold red", soft_wrap=True)
            if collector.foreign:
                console.print(f"{collector.foreign} messages in {topics.output} are not results of streamer")
            if tally.foreign_labels:
                console.print(
                    f"agreement counts positive and negative; the model says {tally.foreign_labels}"
                )
            if options.serve:
                _serve(servers, collector, worker, console)
            _stop(worker)
            if not embedded and (problem := delete_group(client, group)):
                console.print(f"the consumer group {group} could not be deleted: {problem}")
        except StreamerError:
            kept = Path(tempfile.gettempdir(), f"streamer-demo-{run}.log")
            shutil.copyfile(log, kept)
            console.print(f"the worker's last lines:\n{worker.tail()}", markup=False, soft_wrap=True)
            console.print(f"all of its log: {kept}", soft_wrap=True)
            raise
    return 0 if tally.complete else 1


def _work(records: list[DemoRecord], on: Line, console: Console) -> None:
    """Publish, never more than MAX_LAG ahead of the worker, and read until all is committed and read."""
    waiting = iter(records)
    known = {record.id: record for record in records if record.id}
    counters = Counters(total=len(records), stage="the worker starts")
    published = on.publisher.published
    before, progress_at = (0, 0), time.monotonic()
    with Display(console, counters) as display:
        while counters.committed < len(records) or not on.collector.at_end():
            room = MAX_LAG - (on.publisher.sent - counters.committed)
            on.publisher.publish(list(islice(waiting, max(0, room))))
            new = [result for result in on.collector.poll(0.05) if result.id in known]
            counters.published = len(published)
            committed = on.group.committed()
            counters.committed = sum(offset < committed[partition] for partition, offset in published)
            counters.scored += len(new)
            counters.dead = sum(place in published for place in on.collector.dead)
            counters.right += sum(result.label.casefold() == known[result.id].label for result in new)
            if counters.scored:
                counters.stage = "scoring"
            display.show([Scored(known[result.id].text, result.label, result.score) for result in new])
            _require(on.worker)
            if (now := (counters.committed, counters.scored)) != before:
                before, progress_at = now, time.monotonic()
            patience = PATIENCE if counters.scored else PATIENCE_AT_START
            if time.monotonic() > progress_at + patience:
                raise NoProgress(
                    f"for {patience:.0f} s; {counters.published} published, {counters.committed} committed"
                )
        counters.stage = "done"


def _serve(servers: str, collector: Collector, worker: ChildProcess, console: Console) -> None:
    """Go on until Ctrl-C, and show what comes out."""
    console.print(
        "\nIt goes on scoring until Ctrl-C. In another terminal:\n"
        f"  export STREAMER__KAFKA__BOOTSTRAP_SERVERS={servers}\n"
        f"""  echo '{{"text": "Fresh, sweet and well packed"}}' | {program()} publish -\n"""
        f"  {program()} tail\n",
        markup=False,
        soft_wrap=True,
    )
    try:
        while True:
            with reported(servers, TransientError):
                new = collector.poll(0.2)
            for result in new:
                console.print(line(Scored(result.id, result.label, result.score)), no_wrap=True)
            collector.forget()
            _require(worker)
    except KeyboardInterrupt:
        console.print("stopping ...")


def program() -> str:
    """How to call streamer from here: by its name, or by the path in the virtual environment."""
    if shutil.which("streamer"):
        return "streamer"
    script = Path(sys.executable).with_name("streamer")
    if not script.exists():
        return f"{sys.executable} -m streamer"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


def _require(worker: ChildProcess) -> None:
    if worker.exit_code is not None:
        raise WorkerEnded(worker.exit_code, f"exit code {worker.exit_code}")


def _stop(worker: ChildProcess) -> None:
    """End it as an orchestrator would; it has nothing under way, so it must end well."""
    if (code := worker.stop()) != 0:
        raise WorkerEnded(code, f"SIGTERM was answered with exit code {code} instead of 0")


def _environment(embedded: bool) -> dict[str, str]:
    """Ours, without settings of streamer that would turn the demo into something else."""
    passed_on = PASSED_ON if embedded else (*PASSED_ON, "KAFKA__PROPERTIES__")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STREAMER__") or name.removeprefix("STREAMER__").startswith(passed_on)
    }
