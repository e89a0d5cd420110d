"""`streamer dlq list`, `show` and `stats`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from streamer.cli import messages
from streamer.cli.dlq.options import selection
from streamer.cli.dlq.reading import Topic, open_index, open_topic, say
from streamer.cli.options import load_config
from streamer.deadletters.letters import Foreign, Letter, read
from streamer.deadletters.scan import Bounds
from streamer.deadletters.selection import Selection, stamp
from streamer.errors import StreamerError, TransientError
from streamer.records import Record
from streamer.settings import Config
from streamer.state.entries import Audit, Entry

SHOWN_AUDITS = 5


def listing(args: argparse.Namespace) -> int:
    config = load_config(args)
    chosen = selection(args)
    if not args.text and not args.scan and (found := _from_index(config)) is not None:
        entries = list(islice(filter(chosen.takes, found[0]), args.max))
        _print_entries(entries, {}, [], args)
        return 0
    with open_topic(config) as topic:
        catalogue = topic.catalogue()
        letters = [letter for letter in reversed(list(catalogue)) if chosen.takes(letter.entry)][: args.max]
        texts = _texts(topic, letters) if args.text else {}
    # What is not a letter has no reason, no time of failure and no id to choose it by.
    foreign = catalogue.foreign[-args.max :] if chosen == Selection() else []
    _print_entries([letter.entry for letter in letters], texts, foreign, args)
    return 0


def show(args: argparse.Namespace) -> int:
    """Asked for by its coordinate, so the text is shown."""
    config = load_config(args)
    with open_topic(config) as topic:
        name, number, offset = args.place
        source = f"{name}:{number}:{offset}"
        own = name == topic.name  # the letter's own coordinate: no need to read the topic
        within = topic.bounds
        if own:
            low, high = topic.bounds.get(number, Bounds(0, 0))
            within = {number: Bounds(max(low, offset), min(high, offset + 1))}
        found = 0
        for record in topic.records(within):
            letter = read(record, topic.decoder)
            if own or (isinstance(letter, Letter) and letter.entry.source == source):
                found += 1
                _print_message(record, letter, as_json=args.json)
    if not found:
        raise StreamerError(
            f"there is no dead letter {source}: `streamer dlq list` shows the coordinates; the topic may "
            "have been purged, or have dropped it when its retention was over"
        )
    return 0


def stats(args: argparse.Namespace) -> int:
    config = load_config(args)
    chosen = selection(args)
    if not args.scan and (found := _from_index(config)) is not None:
        entries, audits = found
        report = _count(filter(chosen.takes, entries), audits, source="index")
    else:
        with open_topic(config) as topic:
            catalogue = topic.catalogue()
        report = _count(filter(chosen.takes, catalogue.entries()), catalogue.audits(), source="topic")
        if chosen == Selection():
            report["foreign"] = len(catalogue.foreign)
    if args.json:
        print(msgspec.json.encode(report).decode())
    else:
        _print_stats(report)
    return 0


def _from_index(config: Config) -> tuple[Iterator[Entry], list[Audit]] | None:
    """The entries and the audit, or None where the topic has to do, and why on standard error."""
    index = open_index(config)
    try:
        if index is not None and len(index):
            return index.entries(), index.audits()
        if index is not None:
            say("the index is empty (`streamer dlq rebuild` fills it)")
    except TransientError as error:
        say(error.detail)
    say(f"reading the topic {config.topics.dead_letters}")
    return None


def _texts(topic: Topic, letters: Iterable[Letter]) -> dict[str, str]:
    wanted = {(letter.partition, letter.offset): letter.entry.key for letter in letters}
    within = {
        partition: Bounds(min(offsets), max(offsets) + 1)
        for partition in {at[0] for at in wanted}
        if (offsets := [at[1] for at in wanted if at[0] == partition])
    }
    return {
        key: messages.text(record.value) or ""
        for record in topic.records(within)
        if (key := wanted.get((record.partition, record.offset))) is not None
    }


def _count(entries: Iterable[Entry], audits: list[Audit], source: str) -> dict[str, Any]:
    reasons: dict[str, Counter[str]] = {}
    stages: Counter[str] = Counter()
    status: Counter[str] = Counter()
    replays: Counter[str] = Counter()
    oldest, newest = 0, 0
    for entry in entries:
        reasons.setdefault(entry.reason, Counter())[entry.status] += 1
        stages[entry.stage] += 1
        status[entry.status] += 1
        replays[str(entry.replays)] += 1
        newest = max(newest, entry.failed_at)
        oldest = min(oldest or entry.failed_at, entry.failed_at)
    return {
        "source": source,
        "letters": status.total(),
        "status": status,
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1].total())),
        "stages": stages,
        "replays": dict(sorted(replays.items())),
        "oldest": oldest,
        "newest": newest,
        "audit": audits[:SHOWN_AUDITS],
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
    if again := {number: count for number, count in report["replays"].items() if number != "0"}:
        print(
            "died again: "
            + ", ".join(f"{count:,} after {number} replay(s)" for number, count in again.items())
        )
    for audit in report["audit"]:
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
        again = f" (replay {entry.replays} of {entry.origin})" if entry.replays else ""
        line = (
            f"{stamp(entry.failed_at)}  {entry.status:8}  {entry.reason:16} {entry.stage:8} "
            f"{entry.source}{again}  {entry.id or '-'}  {entry.message}"
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


def _print_message(record: Record, letter: object, *, as_json: bool) -> None:
    whole = messages.as_object(record)
    if as_json:
        print(msgspec.json.encode(whole).decode())
        return
    kind = {"Letter": "dead letter", "Foreign": "not written by streamer", "Note": "a replay's note"}
    print(f"{messages.place(record)}: {kind[type(letter).__name__]}")
    if record.defect:
        print(f"  ({record.defect})")
    for name, value in whole["headers"].items():
        print(f"  {messages.printable(name)}: {messages.printable(value or '')}")
    print(f"key: {messages.printable(whole['key'] or '-')}")
    print(messages.printable(whole["value"] or ""))
