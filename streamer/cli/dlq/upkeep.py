"""`streamer dlq rebuild` and `purge`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from streamer import logs
from streamer.cli import clients, messages
from streamer.cli.dlq.options import name_of_run, selection, who
from streamer.cli.dlq.reading import Topic, open_index, open_topic, require_index, say, tell_missing
from streamer.cli.options import load_config
from streamer.deadletters.catalogue import Catalogue
from streamer.deadletters.letters import NOTE_HEADER, REPLAYED, Note, Step
from streamer.deadletters.selection import Selection
from streamer.errors import StreamerError, TransientError, UsageError
from streamer.settings import Config
from streamer.shipping import CHUNK_RECORDS
from streamer.state.entries import Audit

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from streamer.state.index import RedisDeadLetters

log = logging.getLogger(__name__)


def rebuild(args: argparse.Namespace) -> int:
    """The workers may go on meanwhile: what dies now they index themselves."""
    config = load_config(args)
    index = require_index(config)
    with open_topic(config) as topic:
        before, catalogue = len(index), topic.catalogue()
        if not args.dry_run:
            # What died meanwhile its worker has indexed already, and that goes with the rest; but it is in
            # the topic by now. From here on the workers write into the new index.
            index.clear()
            topic.catch_up(catalogue)
            fill(index, catalogue)
    replayed = sum(entry.replayed for entry in catalogue.entries())
    report = {
        "action": "rebuild",
        "dry_run": args.dry_run,
        "letters": len(catalogue),
        "indexed": min(len(catalogue), index.limit),
        "replayed": replayed,
        "foreign": len(catalogue.foreign),
        "before": before,
    }
    if args.json:
        print(msgspec.json.encode(report).decode())
    else:
        done = "would hold" if args.dry_run else "holds"
        what = f"{len(catalogue):,} letters ({replayed:,} replayed)"
        if len(catalogue) > index.limit:
            what = f"the newest {index.limit:,} of {what}"
        print(f"the index {done} {what}; before: {report['before']:,}")
        if catalogue.foreign:
            print(f"left out: {len(catalogue.foreign):,} messages that streamer did not write")
    return 0


def fill(index: RedisDeadLetters, catalogue: Catalogue) -> None:
    """Write into an index what the topic says of the newest letters."""
    newest = list(islice(catalogue.entries(), index.limit))
    index.put(reversed(newest))
    index.mark_replayed(entry.key for entry in newest if entry.replayed)
    index.link(catalogue.origins)
    for audit in catalogue.audits():
        index.record(audit)


def purge(args: argparse.Namespace) -> int:
    """Kafka cuts a partition from its start only, so it goes up to the first letter that is to stay."""
    config = load_config(args)
    logs.configure(config.log.format, config.log.level, config.log.repeat_s)
    chosen = selection(args)
    with open_topic(config) as topic:
        catalogue = topic.catalogue()
        cuts = _cuts(topic, catalogue, chosen)
    going = set(catalogue.below(cuts))
    entries = list(catalogue.entries())
    matching = sum(map(chosen.takes, entries))
    gone = [entry for entry in entries if entry.key in going]
    foreign = sum(one.offset < cuts[one.partition] for one in catalogue.foreign)
    report: dict[str, Any] = {
        "action": "purge",
        "dry_run": args.dry_run,
        "filter": str(chosen),
        "matching": matching,
        "letters": len(gone),
        "not_replayed": sum(not entry.replayed for entry in gone),
        "foreign": foreign,
        "reasons": dict(Counter(entry.reason for entry in gone).most_common()),
        "cuts": {str(partition): cut for partition, cut in cuts.items() if cut > topic.bounds[partition].low},
        "purged": False,
    }
    if not args.json:
        _describe(report, config)
    tell_missing(chosen, {entry.reason for entry in entries})
    if not args.dry_run and (gone or foreign):
        if not args.yes and not _confirmed(report, config):
            print("nothing was deleted", file=sys.stderr)
            return 1
        at = int(time.time() * 1000)
        audit = Audit(
            name=name_of_run(at), action="purge", at=at, by=who(), filter=str(chosen), count=len(going)
        )
        _carry(config, catalogue.carried(cuts), audit)
        _delete(config, cuts)
        report["purged"] = True
        _book(config, sorted(going), audit)
    if args.json:
        print(msgspec.json.encode(report).decode())
    elif report["purged"]:
        print(f"deleted {len(gone):,} dead letters")
    return 0


def _cuts(topic: Topic, catalogue: Catalogue, chosen: Selection) -> dict[int, int]:
    """For each partition the offset of the first message to stay; the end, where there is none."""
    cuts = {partition: bound.high for partition, bound in topic.bounds.items()}
    staying = [
        copy
        for letter in catalogue
        if not chosen.takes(letter.entry)
        for copy in catalogue.copies(letter.entry.key)
    ]
    places = [(copy.partition, copy.offset) for copy in staying]
    if chosen != Selection():  # a filter that a foreign message cannot meet
        places += [(one.partition, one.offset) for one in catalogue.foreign]
    for partition, offset in places:
        cuts[partition] = min(cuts[partition], offset)
    return cuts


def _describe(report: dict[str, Any], config: Config) -> None:
    topic = config.topics.dead_letters
    if not (report["matching"] or report["foreign"]):
        print(f"there is nothing to delete in {topic}")
        return
    for reason, count in report["reasons"].items():
        print(f"  {count:>8,}  {messages.printable(reason)}")
    print(
        f"{report['letters']:,} of {report['matching']:,} matching dead letters can be deleted from "
        f"{topic}, {report['not_replayed']:,} of them not replayed"
        + (f"; and {report['foreign']:,} messages that streamer did not write" if report["foreign"] else "")
    )
    if report["letters"] < report["matching"]:
        print(
            "the others lie behind letters that are to stay: Kafka deletes from the start of a partition only"
        )


def _confirmed(report: dict[str, Any], config: Config) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("purge asks first, and nobody is there to answer: add --yes, or --dry-run to look")
    topic = config.topics.dead_letters
    foreign = f" and {report['foreign']:,} other messages" if report["foreign"] else ""
    # Not by `input`, which asks on standard output: that may be JSON for another program.
    print(
        f"Delete {report['letters']:,} dead letters{foreign} from {topic} for ever? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _carry(config: Config, carried: Mapping[int, Sequence[Step]], audit: Audit) -> None:
    """Letters that stay keep the number of their replays, though the notes that tell it are deleted."""
    if not carried:
        return
    producer = clients.producer(
        config, {"acks": "all", "enable.idempotence": True, "message.timeout.ms": 30_000}
    )
    failed: list[KafkaError] = []
    for partition, steps in carried.items():
        for start in range(0, len(steps), CHUNK_RECORDS):
            note = Note(
                audit.name, audit.at, audit.by, audit.filter, list(steps[start : start + CHUNK_RECORDS])
            )
            producer.produce(
                config.topics.dead_letters,
                msgspec.json.encode(note),
                partition=partition,
                headers=[(NOTE_HEADER, REPLAYED)],
                on_delivery=lambda error, message: failed.append(error) if error else None,
            )
    if producer.flush(40) or failed:
        why = failed[0].str() if failed else "no answer"
        raise StreamerError(f"{config.topics.dead_letters} cannot be written ({why}): nothing was deleted")


def _delete(config: Config, cuts: dict[int, int]) -> None:
    from confluent_kafka import KafkaException, TopicPartition

    topic = config.topics.dead_letters
    positions = [TopicPartition(topic, partition, cut) for partition, cut in cuts.items()]
    admin = clients.admin(config)  # held on to: nobody completes the futures of one that is gone
    try:
        for future in admin.delete_records(positions, request_timeout=clients.TIMEOUT).values():
            future.result()
    except KafkaException as error:
        raise StreamerError(
            f"{topic}: the broker does not delete: {error.args[0].str()}; it needs the right Delete on "
            "the topic, and cleanup.policy delete"
        ) from None


def _book(config: Config, keys: list[str], audit: Audit) -> None:
    log.info("dead letters purged", extra={"audit": msgspec.to_builtins(audit)})
    index = open_index(config)
    if index is None:
        return
    try:
        index.forget(keys)
        index.record(audit)
    except TransientError as error:
        say(f"the index still has them; `streamer dlq rebuild` repairs it ({error.detail})")
