"""`streamer dlq list`, `show` and `stats`."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from streamer.cli import messages
from streamer.cli.dlq.options import selection
from streamer.cli.dlq.reading import Topic, around, open_index, open_topic, say, tell_missing
from streamer.cli.options import load_config
from streamer.deadletters.letters import Foreign, Letter, Note, read
from streamer.deadletters.scan import Bounds
from streamer.deadletters.selection import Selection, stamp
from streamer.errors import NotFound, TransientError
from streamer.records import Record
from streamer.settings import Config
from streamer.state.entries import Audit, Entry

if TYPE_CHECKING:
    from streamer.state.index import RedisDeadLetters

SHOWN_AUDITS = 5


def listing(args: argparse.Namespace) -> int:
    config = load_config(args)
    chosen = selection(args)
    texts: dict[str, str] = {}
    foreign: list[Foreign] = []
    if not args.text and not args.scan and (index := _filled_index(config)) is not None:
        entries = list(islice(filter(chosen.takes, index.entries()), args.max + 1))
        reasons: Collection[str] = index.counts()
    else:
        with open_topic(config) as topic:
            catalogue = topic.catalogue()
            newest = (letter for letter in reversed(list(catalogue)) if chosen.takes(letter.entry))
            letters = list(islice(newest, args.max + 1))
            if args.text:
                texts = {
                    letter.entry.key: messages.text(record.value) or ""
                    for record, letter in _records(topic, letters[: args.max])
                }
        entries = [letter.entry for letter in letters]
        reasons = {letter.entry.reason for letter in catalogue}
        # What is not a letter has no reason, no time of failure and no id to choose it by.
        foreign = catalogue.foreign[-args.max :] if chosen == Selection() else []
    _print_entries(entries[: args.max], texts, foreign, args)
    if len(entries) > args.max:
        say(f"these are the newest {args.max:,}, and there are more: --max N shows N")
    tell_missing(chosen, reasons)
    if not entries and not foreign:
        say("there are no dead letters" if chosen == Selection() else "no dead letter is like that")
    return 0


def show(args: argparse.Namespace) -> int:
    """Asked for by name, so the text is shown. Who died again after a replay has a letter for each time."""
    config = load_config(args)
    with open_topic(config) as topic:
        if (place := _place(args.what, topic)) is not None:
            found = [(record, read(record, topic.decoder)) for record in topic.records(place)]
        else:
            catalogue = topic.catalogue()
            chosen = Selection(ids=(args.what,))
            letters = [letter for letter in catalogue if chosen.takes(letter.entry)]
            found = list(_records(topic, letters))
        for record, what in found:
            _print_message(record, what, as_json=args.json)
    if not found:
        raise NotFound(
            f"there is no dead letter of {args.what} in {topic.name}: `streamer dlq list` shows ids and "
            "coordinates; the topic may have been purged, or have dropped it when its retention was over"
        )
    return 0


def _place(what: str, topic: Topic) -> dict[int, Bounds] | None:
    """Where the message lies, if it is named by its place in the dead-letter topic."""
    if not (match := re.fullmatch(r"(.+):(\d{1,9}):(\d{1,18})", what, re.ASCII)) or match[1] != topic.name:
        return None
    number, offset = int(match[2]), int(match[3])
    low, high = topic.bounds.get(number, Bounds(0, 0))
    return {number: Bounds(max(low, offset), min(high, offset + 1))}


def stats(args: argparse.Namespace) -> int:
    config = load_config(args)
    chosen = selection(args)
    if not args.scan and (index := _filled_index(config)) is not None:
        report = _count(filter(chosen.takes, index.entries()), index.audits(), source="index")
        reasons: Collection[str] = index.counts()
    else:
        with open_topic(config) as topic:
            catalogue = topic.catalogue()
        report = _count(filter(chosen.takes, catalogue.entries()), catalogue.audits(), source="topic")
        reasons = {letter.entry.reason for letter in catalogue}
        if chosen == Selection():
            report["foreign"] = len(catalogue.foreign)
    if args.json:
        print(msgspec.json.encode(report).decode())
    else:
        _print_stats(report)
    tell_missing(chosen, reasons)
    return 0


def _filled_index(config: Config) -> RedisDeadLetters | None:
    """The index, or None where the topic has to do, and why on standard error."""
    index = open_index(config)
    try:
        if index is not None and (count := len(index)):
            if count >= index.limit:
                say(f"the index holds the newest {count:,} letters only; --scan looks at all of the topic")
            return index
        if index is not None:
            say("the index is empty (`streamer dlq rebuild` fills it)")
    except TransientError as error:
        say(error.detail)
    say(f"reading the topic {config.topics.dead_letters}")
    return None


def _records(topic: Topic, letters: Iterable[Letter]) -> Iterator[tuple[Record, Letter]]:
    """The letters with their messages, which are read again."""
    wanted = {(letter.partition, letter.offset): letter for letter in letters}
    for record in topic.records(around(wanted)):
        if (letter := wanted.get((record.partition, record.offset))) is not None:
            yield record, letter


def _count(entries: Iterable[Entry], audits: list[Audit], source: str) -> dict[str, Any]:
    reasons: dict[str, Counter[str]] = {}
    stages: Counter[str] = Counter()
    status: Counter[str] = Counter()
    replays: Counter[int] = Counter()
    attempts: Counter[int] = Counter()
    oldest, newest = 0, 0
    for entry in entries:
        reasons.setdefault(entry.reason, Counter())[entry.status] += 1
        stages[entry.stage] += 1
        status[entry.status] += 1
        replays[entry.replays] += 1
        attempts[entry.attempts] += 1
        newest = max(newest, entry.failed_at)
        oldest = min(oldest or entry.failed_at, entry.failed_at)
    return {
        "source": source,
        "letters": status.total(),
        "status": status,
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1].total())),
        "stages": stages,
        "attempts": {str(number): count for number, count in sorted(attempts.items())},
        "replays": {str(number): count for number, count in sorted(replays.items())},
        "oldest": oldest or None,
        "newest": newest or None,
        "audit": audits,
    }


def _print_stats(report: dict[str, Any]) -> None:
    total = report["letters"]
    times = f", from {stamp(report['oldest'])} to {stamp(report['newest'])}" if total else ""
    print(f"{total:,} dead letters{times} (from the {report['source']})")
    for reason, counts in report["reasons"].items():
        parts = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
        print(f"  {counts.total():>8,}  {messages.printable(reason):24} {parts}")
    if report.get("foreign"):
        print(f"  {report['foreign']:>8,}  not written by streamer")
    if any(number != "1" for number in report["attempts"]):
        parts = ", ".join(f"{count:,} after {number}" for number, count in report["attempts"].items())
        print(f"tries: {parts}")
    if again := {number: count for number, count in report["replays"].items() if number != "0"}:
        parts = ", ".join(f"{count:,} after replay {number}" for number, count in again.items())
        print(f"died again: {parts}")
    for audit in report["audit"][:SHOWN_AUDITS]:
        print(
            f"{audit.action} {audit.name}: {audit.count:,} by {audit.by} at {stamp(audit.at)}, {audit.filter}"
        )


def as_object(entry: Entry) -> dict[str, Any]:
    """For JSON: every field, and what follows from them."""
    plain = {name: getattr(entry, name) for name in Entry.__struct_fields__ if name != "replayed"}
    return {"source": entry.source, "status": entry.status, **plain}


def _print_entries(
    entries: list[Entry], texts: dict[str, str], foreign: list[Foreign], args: argparse.Namespace
) -> None:
    for entry in entries:
        text = texts.get(entry.key)
        if args.json:
            shown = as_object(entry) | ({"value": text} if args.text else {})
            print(msgspec.json.encode(shown).decode())
            continue
        tries = f" (try {entry.attempts})" if entry.attempts > 1 else ""
        line = (
            f"{stamp(entry.failed_at)}  {entry.status:8}  {entry.reason:16} {entry.stage:8} "
            f"{entry.source}{_again(entry)}{tries}  {entry.id or '-'}  {entry.message}"
        )
        print(messages.printable(line))
        if text is not None:
            print(f"    {messages.printable(text)}")
    for one in foreign:
        if args.json:
            print(msgspec.json.encode({"status": "foreign", **msgspec.structs.asdict(one)}).decode())
        else:
            print(
                f"{stamp(one.timestamp)}  foreign   partition {one.partition} offset {one.offset}: {one.why}"
            )


def _print_message(record: Record, what: Letter | Note | Foreign, *, as_json: bool) -> None:
    if as_json:
        letter = {"letter": as_object(what.entry)} if isinstance(what, Letter) else {}
        print(msgspec.json.encode(messages.as_object(record) | letter).decode())
        return
    print(f"{messages.place(record)}: {_kind(what)}")
    if record.defect:
        print(f"  ({record.defect.detail})")
    for name, value in record.headers:
        print(f"  {messages.printable(name)}: {messages.printable(messages.text(value) or '')}")
    for name, content in ("key: ", record.key), ("", record.value):
        if content is not None and not messages.is_text(content):
            print(f"({name}{len(content):,} bytes that are no UTF-8; --json has them in base64)")
        print(name + messages.printable(messages.text(content) or ("-" if name else "")))


def _kind(what: Letter | Note | Foreign) -> str:
    if isinstance(what, Letter):
        return f"dead letter{_again(what.entry)}" + (", replayed" if what.entry.replayed else "")
    return "a replay's note" if isinstance(what, Note) else f"not written by streamer: {what.why}"


def _again(entry: Entry) -> str:
    """Which replay of what record it was that died."""
    return f" (replay {entry.replays} of {entry.origin})" if entry.replays else ""
