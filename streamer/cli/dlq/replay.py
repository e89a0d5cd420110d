"""`streamer dlq replay`."""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from streamer import logs
from streamer.app import connect_redis, describe_cluster, redis_claims
from streamer.cli import clients, messages, signals
from streamer.cli.dlq.options import name_of_run, selection, who
from streamer.cli.dlq.reading import Topic, around, open_index, open_topic, progress, say, tell_missing
from streamer.cli.options import load_config
from streamer.deadletters.catalogue import Catalogue
from streamer.deadletters.letters import Note, identify, record_of
from streamer.deadletters.replay import Candidate, Parcel, Replay, Sent, chunks, parcel
from streamer.deadletters.selection import Selection
from streamer.errors import TransientError
from streamer.ledger import Lane
from streamer.records import CUT, UNREADABLE, Job, Record, TopicPartition
from streamer.settings import Config
from streamer.shipping import SETTINGS
from streamer.state.entries import Audit

log = logging.getLogger(__name__)

LEFT = {
    "replayed": "replayed before",
    "exhausted": "replayed too often (--max-replays)",
    "incomplete": "not the whole record, which is still where it was read, if anywhere",
    "elsewhere": "from another topic than this input",
    "foreign": "not written by streamer",
    "beyond_max": "beyond --max",
}


def replay(args: argparse.Namespace) -> int:
    """What dies again while it runs is not replayed by it: the bound is where the topic ends at its start."""
    config = load_config(args)
    logs.configure(config.log.format, config.log.level, config.log.repeat_s)
    signals.interrupt_on_terminate()
    partitions, generations, _ = describe_cluster(config)
    at = int(time.time() * 1000)
    chosen = selection(args)
    note = Note(name_of_run(at), at, who(), str(chosen), [])
    line = None
    if not args.dry_run:
        settings = {**SETTINGS, "transactional.id": f"{config.kafka.group_id}-dlq-replay"}
        line = Replay(
            clients.producer(config, settings),
            dead_letters=config.topics.dead_letters,
            note=note,
        )
        line.begin()
    with open_topic(config) as topic:
        catalogue = topic.catalogue()
        candidates, left = choose(catalogue, chosen, config, args.max, args.max_replays)
        tell_missing(chosen, {letter.entry.reason for letter in catalogue})
        reasons = Counter(one.letter.entry.reason for one in candidates.values())
        report: dict[str, Any] = {
            "action": "replay",
            "name": note.replay,
            "dry_run": args.dry_run,
            "filter": note.filter,
            "selected": len(candidates),
            "reasons": dict(reasons.most_common()),
            "left": {name: count for name, count in left.items() if count},
            "replayed": 0,
            "refused": [],
        }
        if line is not None:
            books = _Books(config, generations, catalogue)
            try:
                input = config.topics.input
                make = partial(parcel, note=note, topic=input, partitions=partitions[input])
                parcels = _parcels(topic, candidates, config, make, books.claim)
                with progress("replaying", len(candidates)) as advance:
                    for chunk in _paced(line, parcels, args.rate):
                        books.give_back(chunk)
                        books.note(line.publish(chunk))
                        advance(len(chunk))
            finally:  # after Ctrl-C and an error too: how far it came is what one needs to know
                report |= {"replayed": books.replayed, "refused": books.refused}
                books.close(note)
                _print(report, as_json=args.json)
                line.abort()
            return 1 if books.refused else 0
    _print(report, as_json=args.json)
    return 0


def choose(
    catalogue: Catalogue, chosen: Selection, config: Config, most: int | None, max_replays: int
) -> tuple[dict[tuple[int, int], Candidate], Counter[str]]:
    """The candidates by their place in the dead-letter topic, and how many were left out and why."""
    candidates: dict[tuple[int, int], Candidate] = {}
    left = Counter({"foreign": len(catalogue.foreign) if chosen == Selection() else 0})
    for letter in catalogue:
        entry = letter.entry
        if not chosen.takes(entry):
            continue
        if entry.replayed:
            left["replayed"] += 1
        elif entry.reason in (CUT, UNREADABLE):
            left["incomplete"] += 1
        elif entry.topic != config.topics.input:
            left["elsewhere"] += 1
        elif entry.replays >= max_replays:
            left["exhausted"] += 1
        elif most is not None and len(candidates) >= most:
            left["beyond_max"] += 1
        else:
            offsets = [
                copy.offset for copy in catalogue.copies(entry.key) if copy.partition == letter.partition
            ]
            candidates[letter.partition, letter.offset] = Candidate(letter, offsets, entry.replays + 1)
    return candidates, left


def _paced(line: Replay, parcels: Iterator[Parcel], rate: float | None) -> Iterator[list[Parcel]]:
    """Chunk by chunk, each when its turn has come."""
    started, count = time.monotonic(), 0
    for chunk in chunks(parcels, rate):
        if rate is not None:
            line.wait_until(started + count / rate)
        count += len(chunk)
        yield chunk


def _parcels(
    topic: Topic,
    candidates: Mapping[tuple[int, int], Candidate],
    config: Config,
    make: Callable[[Candidate, Record, str | None], Parcel],
    claim: Callable[[Candidate, Job], None],
) -> Iterator[Parcel]:
    """The candidates with their values, which are read again: to hold them all could be too much."""
    keep_id = "header" in config.input.id_from
    for found in topic.quiet(around(candidates)):
        candidate = candidates.get((found.partition, found.offset))
        if candidate is None:
            continue
        entry = candidate.letter.entry
        record = record_of(found, entry)
        id = identify(record, topic.decoder)
        claim(candidate, Job(record, Lane(TopicPartition(entry.topic, entry.partition)), 0, id))
        # An id that is the coordinate would become the new coordinate: the result keeps the first.
        yield make(candidate, record, id if keep_id and id == entry.source else None)


class _Books:
    """What was done: on the screen, in the index, in the log. The topic has it already."""

    def __init__(self, config: Config, generations: Mapping[str, str], catalogue: Catalogue) -> None:
        self.replayed = 0
        self.refused: list[dict[str, str]] = []
        self._jobs: dict[str, Job] = {}
        self._index = open_index(config)
        if self._index is None:
            say(
                f"replaying from the topic {config.topics.dead_letters} alone: a record whose claim a worker "
                "could not give back when it died is skipped as a duplicate of itself"
            )
            return
        self._deduplicator = redis_claims(config, connect_redis(config), generations)
        # A replay that was killed may have committed more than it could tell the index.
        self._tell(lambda index: index.link(catalogue.origins))
        self._tell(lambda index: index.mark_replayed(one.key for one in catalogue.entries() if one.replayed))
        for audit in catalogue.audits():
            self._tell(lambda index, audit=audit: index.record(audit))  # type: ignore[misc]

    def claim(self, candidate: Candidate, job: Job) -> None:
        self._jobs[candidate.letter.entry.key] = job

    def give_back(self, chunk: Sequence[Parcel]) -> None:
        """A worker gives the claim of a dead record back. One that died before it could, or that had no Redis
        and went on, has not; then the replay would be taken for a duplicate, and be lost."""
        jobs = [self._jobs.pop(one.candidate.letter.entry.key) for one in chunk]
        self._tell(lambda index: self._deduplicator.give_back(jobs))

    def note(self, sent: Sent) -> None:
        self.replayed += len(sent.replayed)
        self.refused += [{"source": entry.source, "why": why} for entry, why in sent.refused]
        self._tell(
            lambda index: index.link({step.key: (step.origin, step.number) for _, step in sent.replayed})
        )
        self._tell(lambda index: index.mark_replayed(entry.key for entry, _ in sent.replayed))

    def close(self, note: Note) -> None:
        if not self.replayed:
            return
        audit = Audit(
            name=note.replay, action="replay", at=note.at, by=note.by, filter=note.filter, count=self.replayed
        )
        self._tell(lambda index: index.record(audit))
        log.info("dead letters replayed", extra={"audit": msgspec.to_builtins(audit)})

    def _tell(self, what: Callable[[Any], object]) -> None:
        """The index is told once; when it goes away, the rest of the replay does without it."""
        if self._index is None:
            return
        try:
            what(self._index)
        except TransientError as error:
            self._index = None
            say(f"the index is away, going on without it; `streamer dlq rebuild` repairs it ({error.detail})")


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(report).decode(), flush=True)
        return
    for reason, count in report["reasons"].items():
        print(f"  {count:>8,}  {messages.printable(reason)}")
    for name, count in report["left"].items():
        print(f"  {count:>8,}  left alone: {LEFT[name]}")
    missing = report["selected"] - report["replayed"] - len(report["refused"])
    for one in report["refused"]:
        print(f"  the broker does not take {one['source']}: {one['why']}")
    selected = report["selected"]
    if report["dry_run"]:
        print(f"{selected:,} would be replayed; nothing was written")
    else:
        print(f"replayed {report['replayed']:,} of {selected:,} ({report['name']})")
        if missing:
            print(f"{missing:,} were not: run it again for what is left; what was replayed is not repeated")
