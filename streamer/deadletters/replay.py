"""Publishing dead letters again, so that a crash neither repeats nor skips one.

A chunk of records and the note that they were replayed are one Kafka transaction: either both are there or
neither, and who runs the replay again reads in the topic what is done. One `transactional.id` for a group
lets the newer of two replays end the older, and abort what a killed one left open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from streamer.deadletters.letters import NOTE_HEADER, REPLAYED, Letter, Note, Step, original
from streamer.delays import RETRY_PREFIX
from streamer.records import Record
from streamer.shipping import CHUNK_BYTES, CHUNK_RECORDS, Addressed, Shipper
from streamer.state.entries import Entry

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

ANSWER = 60.0  # seconds for the broker to end a transaction
REPLAY_PREFIX = "replay."
OURS = (REPLAY_PREFIX, RETRY_PREFIX)
FENCED = "another replay of this group has taken over; what it found replayed it leaves alone"


class Candidate(Struct, frozen=True, gc=False):
    """A letter to replay: its last copy, the offsets of all copies, and what replay of the record it is."""

    letter: Letter
    offsets: list[int]
    number: int

    @property
    def origin(self) -> str:
        return self.letter.entry.origin or self.letter.entry.source


class Parcel(Struct, frozen=True, gc=False):
    """A candidate with the message that is published for it."""

    candidate: Candidate
    message: Addressed


class Sent(Struct, gc=False):
    """What came of a chunk."""

    replayed: list[tuple[Entry, Step]]
    refused: list[tuple[Entry, str]]


class Replay:
    """Publishes chunks and notes them in `dead_letters`. `note` has what all its notes say."""

    def __init__(self, producer: Producer, *, dead_letters: str, note: Note) -> None:
        self._shipper = Shipper(producer, answer=ANSWER, explain=_explain, fenced=FENCED)
        self._dead_letters = dead_letters
        self._note = note
        self.begin = self._shipper.begin
        self.abort = self._shipper.abort
        self.wait_until = self._shipper.wait_until

    def publish(self, parcels: Sequence[Parcel]) -> Sent:
        """See a chunk through to its commit. What the broker does not take is left out, and told."""
        sent = Sent([], [])

        def done(written: Sequence[Parcel], receipts: Sequence[Message]) -> None:
            pairs = zip(written, receipts, strict=True)
            sent.replayed += [(one.candidate.letter.entry, _step(one, receipt)) for one, receipt in pairs]

        def refuse(one: Parcel, why: str) -> None:
            sent.refused.append((one.candidate.letter.entry, why))

        self._shipper.ship(parcels, finish=self._write_notes, done=done, refuse=refuse)
        return sent

    def _write_notes(self, parcels: Sequence[Parcel], receipts: Sequence[Message]) -> None:
        by_partition: dict[int, list[Step]] = defaultdict(list)
        for one, receipt in zip(parcels, receipts, strict=True):
            by_partition[one.candidate.letter.partition].append(_step(one, receipt))
        for number, noted in by_partition.items():
            value = msgspec.json.encode(msgspec.structs.replace(self._note, steps=noted))
            headers: list[tuple[str, bytes | None]] = [(NOTE_HEADER, REPLAYED)]
            self._shipper.produce(Addressed(self._dead_letters, number, None, value, headers))


def parcel(
    candidate: Candidate, record: Record, id: str | None, *, note: Note, topic: str, partitions: int
) -> Parcel:
    """The record as it came first, with where it came from. `id` for one whose id would change otherwise.

    Its delays are forgotten: it may take all of them again.
    """
    entry = candidate.letter.entry
    kept = [header for header in original(record.headers) if not header[0].startswith(OURS)]
    ours = {
        "origin": candidate.origin,
        "timestamp": str(entry.timestamp),
        "number": str(candidate.number),
        "name": note.replay,
    }
    kept += [(REPLAY_PREFIX + name, value.encode()) for name, value in ours.items()]
    if id is not None:
        kept.append(("id", id.encode()))
    where = entry.partition % partitions
    return Parcel(candidate, Addressed(topic, where, record.key, record.value, kept))


def chunks(parcels: Iterable[Parcel], rate: float | None) -> Iterator[list[Parcel]]:
    """As many as a transaction should hold: at a slow rate about a second's worth."""
    most = CHUNK_RECORDS if rate is None else max(1, min(CHUNK_RECORDS, int(rate)))
    chunk: list[Parcel] = []
    size = 0
    for one in parcels:
        if chunk and (len(chunk) >= most or size + one.message.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += one.message.size
    if chunk:
        yield chunk


def _step(parcel: Parcel, receipt: Message) -> Step:
    candidate = parcel.candidate
    return Step(candidate.offsets, _key(receipt), candidate.origin, candidate.number)


def _key(receipt: Message) -> str:
    """As `Entry.key` of the record, should it die again."""
    return f"{receipt.topic()}:{receipt.partition()}:{receipt.offset()}@{receipt.timestamp()[1]}"


def _explain(error: KafkaError) -> str:
    denied = (error.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, error.TOPIC_AUTHORIZATION_FAILED)
    way_out = (
        "a replay needs Write on the input topic, the dead-letter topic and its transactional id"
        if error.code() in denied
        else "run it again: what was replayed is noted, and not repeated"
    )
    return f"the broker refused ({error.name()}: {error.str()}); {way_out}"
