"""`streamer publish`: a file of texts to the input topic."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, get_args

import msgspec

from streamer.cli import clients, rows
from streamer.cli.options import add_config, load_config, rate
from streamer.codec import Format
from streamer.errors import StreamerError

Advance = Callable[[int], None]

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer
    from rich.progress import Progress, TaskID

NAME = "publish"
HELP = "publish a file of texts to the input topic"
SHOWN = 20  # refused rows named one by one
STEP = 200  # rows between two looks at the progress bar
SETTINGS: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 20,
    # What the broker does not take within this time is reported: a person waits for it.
    "message.timeout.ms": 30_000,
    "message.max.bytes": 16_000_000,
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file, plain or gzip; - reads standard input")
    add_config(parser)
    parser.add_argument("--topic", help="instead of the configured input topic")
    parser.add_argument(
        "--format", choices=get_args(rows.Format), help="by default from the file's extension"
    )
    parser.add_argument("--text-field", default="text", metavar="NAME", help="column of the text (text)")
    parser.add_argument("--id-field", metavar="NAME", help="column of the id (id, if there is one)")
    parser.add_argument("--key-field", metavar="NAME", help="column of the record's key (no key)")
    parser.add_argument("--meta", action="store_true", help="send the other columns along as meta")
    parser.add_argument("--rate", type=rate, metavar="N", help="texts a second (as fast as it goes)")


def run(args: argparse.Namespace) -> int:
    """Publish every row that has a text, and name those that have none: 1 if there are any."""
    config = load_config(args)
    topic = args.topic or config.topics.input
    fields = rows.Fields(args.text_field, args.id_field, args.key_field, args.meta)
    format = args.format or rows.format_of(args.file)
    with rows.opened(args.file) as (contents, raw):
        publisher = Publisher(clients.producer(config, SETTINGS), topic, config.input.format)
        clients.partitions_of(publisher.producer, config, topic)
        started = time.monotonic()
        try:
            with _progress(raw) as advance:
                for number, row in enumerate(rows.read(contents, format, fields, args.file)):
                    if args.rate:
                        publisher.serve_until(started + number / args.rate)
                    publisher.publish(row)
                    if number % STEP == 0 or args.rate:
                        advance(publisher.sent)
                publisher.finish()
                advance(publisher.sent)
        finally:  # on Ctrl-C and for a damaged file too: how far it came is what one needs to know
            publisher.finish()
            if publisher.sent or publisher.refused:
                _report(publisher, args.file, time.monotonic() - started)
    if not (publisher.sent or publisher.refused):
        print(f"{args.file} holds no texts")
    if publisher.failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in publisher.failed.most_common())
        raise StreamerError(f"the broker did not take {publisher.failed.total()} texts: {reasons}")
    return 1 if publisher.refused else 0


class Publisher:
    """An idempotent producer and its books."""

    def __init__(self, producer: Producer, topic: str, format: Format) -> None:
        self.producer = producer
        self.sent = 0
        self.acknowledged = 0
        self.refused = 0
        self.failed: Counter[str] = Counter()
        self._topic = topic
        self._format = format

    def publish(self, row: rows.Row | rows.Refused) -> None:
        """Hand a row to librdkafka, or name what is wrong with it on standard error."""
        from confluent_kafka import KafkaException

        if isinstance(row, rows.Refused):
            self._refuse(row)
            return
        try:
            value, headers = _message(row, self._format)
            key = None if row.key is None else row.key.encode()
        except UnicodeEncodeError:
            self._refuse(rows.Refused(row.line, "not UTF-8"))
            return
        except OverflowError:
            self._refuse(rows.Refused(row.line, "a number in it is too large"))
            return
        while True:
            try:
                self.producer.produce(
                    self._topic, value, key, on_delivery=self._delivered, headers=list(headers.items())
                )
                break
            except BufferError:  # the queue is full: the broker is slower than the file
                self.producer.poll(0.1)
            except KafkaException as error:
                self._refuse(rows.Refused(row.line, error.args[0].str()))
                return
        self.sent += 1
        self.producer.poll(0)

    def serve_until(self, deadline: float) -> None:
        """Wait, on the monotonic clock, and take acknowledgements meanwhile."""
        while (left := deadline - time.monotonic()) > 0:
            self.producer.poll(min(left, 0.1))

    def finish(self) -> None:
        """Wait until every text is acknowledged or given up."""
        while self.producer.flush(0.5):
            pass

    def _refuse(self, row: rows.Refused) -> None:
        self.refused += 1
        if self.refused <= SHOWN:
            print(f"line {row.line}: {row.reason}", file=sys.stderr)
        elif self.refused == SHOWN + 1:
            print("and more, which are only counted", file=sys.stderr)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self.failed[error.name()] += 1


def _message(row: rows.Row, format: Format) -> tuple[bytes, dict[str, bytes]]:
    """The value and the headers, in the format that the worker is configured to read."""
    if format == "text":
        return row.text.encode(), {} if row.id is None else {"id": str(row.id).encode()}
    value = {"id": row.id, "text": row.text, "meta": row.meta}
    value = {name: part for name, part in value.items() if part is not None}
    return (msgspec.msgpack if format == "msgpack" else msgspec.json).encode(value), {}


def _report(publisher: Publisher, name: str, seconds: float) -> None:
    count = publisher.acknowledged
    left_out = f"; rows of {name} left out: {publisher.refused}" if publisher.refused else ""
    speed = f", {count / seconds:,.0f} a second" if seconds else ""
    print(f"published {count:,} texts in {seconds:.1f} s{speed}{left_out}")


@contextmanager
def _progress(raw: IO[bytes]) -> Iterator[Advance]:
    """Calls that draw how much of the file is read; on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda sent: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    size = os.fstat(raw.fileno()).st_size or None
    columns = (TextColumn("{task.fields[sent]:>10,} texts"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size, sent=0)
        yield lambda sent: _draw(progress, task, raw, size, sent)


def _draw(progress: Progress, task: TaskID, raw: IO[bytes], size: int | None, sent: int) -> None:
    progress.update(task, completed=raw.tell() if size else sent, sent=sent)
