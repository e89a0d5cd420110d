"""Where the commands read: the index where it answers, else the topic, and they say which."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamer.app import connect_redis, state_prefix
from streamer.cli import clients
from streamer.codec import Decoder
from streamer.deadletters.catalogue import Catalogue
from streamer.deadletters.letters import read
from streamer.deadletters.scan import Bounds, bounds, scan
from streamer.deadletters.selection import Selection
from streamer.errors import StartupError, TransientError
from streamer.records import Record
from streamer.redaction import without_credentials
from streamer.settings import Config

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from streamer.state.index import RedisDeadLetters

Advance = Callable[[int], None]


class Topic:
    """The dead-letter topic, up to where it ended when it was opened."""

    def __init__(self, consumer: Consumer, config: Config) -> None:
        self.name = config.topics.dead_letters
        self._partitions = clients.partitions_of(consumer, config, self.name)
        self.bounds = bounds(consumer, self.name, self._partitions)
        self.decoder = decoder(config)
        self._consumer = consumer

    def records(self, within: Mapping[int, Bounds] | None = None) -> Iterator[Record]:
        """What lies within these bounds, or all of it, with a progress bar."""
        within = self.bounds if within is None else within
        total = sum(max(0, bound.high - bound.low) for bound in within.values())
        with progress("reading", total) as advance:
            yield from scan(self._consumer, self.name, within, advance)

    def quiet(self, within: Mapping[int, Bounds]) -> Iterator[Record]:
        """The same without a bar, for who has one already."""
        return scan(self._consumer, self.name, within)

    def catalogue(self) -> Catalogue:
        found = Catalogue()
        for record in self.records():
            found.add(read(record, self.decoder), record.partition)
        return found

    def catch_up(self, catalogue: Catalogue) -> None:
        """Add what has come since the topic was opened, and move the bounds to where it ends now."""
        now = bounds(self._consumer, self.name, self._partitions)
        since = {at: Bounds(max(bound.low, self.bounds[at].high), bound.high) for at, bound in now.items()}
        for record in self.quiet(since):
            catalogue.add(read(record, self.decoder), record.partition)
        self.bounds = now


def around(places: Iterable[tuple[int, int]]) -> dict[int, Bounds]:
    """By partition, from the first to the last of these offsets."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in places:
        offsets.setdefault(partition, []).append(offset)
    return {partition: Bounds(min(found), max(found) + 1) for partition, found in offsets.items()}


@contextmanager
def open_topic(config: Config) -> Iterator[Topic]:
    """Raises StartupError when there is no broker or no topic."""
    consumer = clients.observer(config, eof=True)
    try:
        yield Topic(consumer, config)
    finally:
        consumer.close()


def decoder(config: Config) -> Decoder:
    """As the worker has it: it finds the id by which a record was claimed."""
    return Decoder(*config.input.decoding)


def open_index(config: Config) -> RedisDeadLetters | None:
    """The index, or None, and why on standard error."""
    try:
        return require_index(config)
    except StartupError as error:
        say(error.detail)
        return None


def require_index(config: Config) -> RedisDeadLetters:
    """The index. Raises StartupError when there is none, or Redis is away."""
    if not config.deduplication.enabled:
        raise StartupError("there is no index: it is in Redis, and deduplication.enabled is false")
    from streamer.state.index import RedisDeadLetters

    try:
        index = RedisDeadLetters(connect_redis(config), prefix=index_prefix(config))
        len(index)
    except TransientError as error:
        where = without_credentials(config.redis.url)
        raise StartupError(f"no index at {where}, see redis.url ({error.detail})") from None
    return index


def index_prefix(config: Config) -> str:
    return f"{state_prefix(config)}dead:"


def say(line: str) -> None:
    """Beside the output, which may be JSON."""
    print(f"streamer: {line}", file=sys.stderr)


def tell_missing(chosen: Selection, there: Collection[str]) -> None:
    """A reason that no letter has is a slip of the pen more often than an answer."""
    if missing := [reason for reason in chosen.reasons if reason not in there]:
        known = f"the reasons are {', '.join(sorted(there))}" if there else "there are no dead letters"
        say(f"no dead letter has the reason {', '.join(missing)}: {known}")


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Calls that draw how far it is; on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
