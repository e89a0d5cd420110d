"""`streamer tail`: results, or dead letters, as they come."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from streamer.cli import clients, messages
from streamer.cli.options import add_config, load_config, positive, seconds
from streamer.codec import DEAD_LETTER_PREFIX
from streamer.errors import StartupError
from streamer.messages import read
from streamer.records import Record, Result

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from rich.text import Text

NAME = "tail"
HELP = "show results as they come"
WAIT = 0.2  # seconds a poll, so that Ctrl-C is served
COLOURS = ("green", "red", "yellow", "cyan", "magenta", "blue")
REPLAY_NOTE = f"{DEAD_LETTER_PREFIX}note"
KNOWN = {"positive": "green", "negative": "red", "neutral": "yellow"}


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--topic", help="instead of the configured one")
    parser.add_argument("--dead", action="store_true", help="the dead letters instead of the results")
    parser.add_argument("--from-beginning", action="store_true", help="what is there already too")
    parser.add_argument("--max", type=positive, metavar="N", help="end after so many")
    parser.add_argument(
        "--exit-when-idle", type=seconds, metavar="SECONDS", help="end when nothing came for so long"
    )
    parser.add_argument("--json", action="store_true", help="one JSON value a line")


def run(args: argparse.Namespace) -> int:
    """Read beside the group: nothing is committed, and no worker loses a partition to it."""
    config = load_config(args)
    topic = args.topic or (config.topics.dead_letters if args.dead else config.topics.output)
    consumer = clients.observer(config)
    try:
        partitions = clients.partitions_of(consumer, config, topic)
        _assign(consumer, topic, partitions, from_beginning=args.from_beginning)
        show = _Raw(dead=args.dead) if args.json else _Readable(dead=args.dead)
        for number, record in enumerate(_messages(consumer, args.exit_when_idle), 1):
            show(record)
            if number == args.max:
                break
    finally:
        consumer.close()
    return 0


def _assign(consumer: Consumer, topic: str, partitions: Sequence[int], *, from_beginning: bool) -> None:
    """From the offsets of now, asked for here: an end resolved later would skip what came meanwhile."""
    from confluent_kafka import KafkaException, TopicPartition

    positions = [TopicPartition(topic, partition) for partition in partitions]
    try:
        for position in positions:
            low, high = consumer.get_watermark_offsets(position, timeout=clients.TIMEOUT)
            position.offset = low if from_beginning else high
    except KafkaException as error:
        raise StartupError(f"{topic}: the broker does not say where it ends: {error.args[0].str()}") from None
    consumer.assign(positions)


def _messages(consumer: Consumer, exit_when_idle: float | None) -> Iterator[Record]:
    """Raises StartupError when the broker refuses to let us read."""
    last = time.monotonic()
    while exit_when_idle is None or time.monotonic() - last < exit_when_idle:
        message = consumer.poll(WAIT)
        if message is None:
            continue
        if (error := message.error()) is not None:
            if error.retriable():
                continue
            raise StartupError(f"the topic cannot be read: {error.str()}")
        last = time.monotonic()
        yield read(message)


class _Raw:
    """Result values as they are; a dead letter as an object with its headers."""

    def __init__(self, *, dead: bool) -> None:
        self._dead = dead

    def __call__(self, record: Record) -> None:
        value = record.value or b"null"
        line = msgspec.json.encode(messages.as_object(record)) if self._dead else value.replace(b"\n", b" ")
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


class _Readable:
    """A coloured line each."""

    def __init__(self, *, dead: bool) -> None:
        from streamer.cli.console import Console

        self._console = Console(highlight=False)
        self._decode = msgspec.json.Decoder(Result).decode
        self._colours = dict(KNOWN)
        self._dead = dead

    def __call__(self, record: Record) -> None:
        line = self._dead_letter(record) if self._dead else self._result(record)
        self._console.print(line, soft_wrap=True)

    def _result(self, record: Record) -> Text:
        from rich.text import Text

        try:
            result = self._decode(record.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Text(f"not a result: {messages.place(record)}", style="dim")
        label = messages.printable(result.label)
        colour = self._colours.setdefault(label, COLOURS[len(self._colours) % len(COLOURS)])
        source = result.source
        return Text.assemble(
            (f"{label:10}", colour),
            f" {result.score:6.1%}  {messages.printable(result.id):24} ",
            (f"{source.topic}[{source.partition}]@{source.offset} {messages.printable(result.model)}", "dim"),
        )

    def _dead_letter(self, record: Record) -> Text:
        from rich.text import Text

        headers = messages.headers(record)
        if REPLAY_NOTE in headers:
            return Text(f"a replay's note: {messages.place(record)}", style="dim")
        of = {name: messages.printable(headers.get(DEAD_LETTER_PREFIX + name) or "?") for name in _SHOWN}
        return Text.assemble(
            (f"{of['reason']:16}", "red"),
            f" {of['stage']:9} {of['message']}  ",
            (f"{of['topic']}[{of['partition']}]@{of['offset']}", "dim"),
        )


_SHOWN = ("reason", "stage", "message", "topic", "partition", "offset")
