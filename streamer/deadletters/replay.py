"""Publishing dead letters again, so that a crash neither repeats nor skips one.

A chunk of records and the note that they were replayed are one Kafka transaction: either both are there or
neither, and who runs the replay again reads in the topic what is done. One `transactional.id` for a group
lets the newer of two replays end the older, and abort what a killed one left open.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from streamer.deadletters.letters import (
    NOTE_HEADER,
    REPLAYED,
    Headers,
    Letter,
    Note,
    Step,
    headers_of,
    original,
)
from streamer.errors import FatalError, StreamerError
from streamer.state.entries import Entry

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, KafkaException, Message, Producer

SETTINGS: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    "transaction.timeout.ms": 60_000,
    # Below the transaction's own: a record that the broker does not take must not outlive it.
    "message.timeout.ms": 30_000,
    "message.max.bytes": 16_000_000,
}
ANSWER = 60.0  # seconds for the broker to end a transaction
# librdkafka loses count of its sequence numbers after a message that was refused: the transaction after it is
# aborted too, and the one after that is well.
ATTEMPTS = 4
CHUNK_RECORDS, CHUNK_BYTES = 500, 8 << 20
REPLAY_PREFIX = "replay."


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
    key: bytes | None
    value: bytes | None
    headers: Headers


class Sent(Struct, gc=False):
    """What came of a chunk."""

    replayed: list[tuple[Entry, Step]]
    refused: list[tuple[Entry, str]]


class Replay:
    """Publishes chunks to `topic` and notes them in `dead_letters`. `note` has what all its notes say."""

    def __init__(
        self, producer: Producer, *, topic: str, partitions: int, dead_letters: str, note: Note
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        self._dead_letters = dead_letters
        self._note = note
        self._open = False

    def begin(self) -> None:
        """End what another replay of this group has open. Before it, no bound may be taken."""
        self._do(self._producer.init_transactions)

    def publish(self, parcels: Sequence[Parcel]) -> Sent:
        """See a chunk through to its commit. What the broker does not take is left out, and told.

        It refuses whole batches for one message that is too large: halving finds the one.
        """
        entries = [one.candidate.letter.entry for one in parcels]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                steps, refusal = self._transact(parcels)
                break
            except _Aborted:
                self.abort()
                if attempt == ATTEMPTS:
                    raise
        if refusal is None:
            return Sent(list(zip(entries, steps, strict=True)), [])
        self.abort()
        if len(parcels) == 1:
            return Sent([], [(entries[0], refusal)])
        half = len(parcels) // 2
        first, second = self.publish(parcels[:half]), self.publish(parcels[half:])
        return Sent(first.replayed + second.replayed, first.refused + second.refused)

    def wait_until(self, deadline: float) -> None:
        """On the monotonic clock."""
        while (left := deadline - time.monotonic()) > 0:
            self._producer.poll(min(left, 0.1))

    def abort(self) -> None:
        """Nothing of an open transaction will be seen."""
        if self._open:
            self._open = False
            self._do(self._producer.abort_transaction)

    def _transact(self, parcels: Sequence[Parcel]) -> tuple[list[Step], str | None]:
        self._do(lambda timeout: self._producer.begin_transaction())
        self._open = True
        steps, refusal = self._send(parcels)
        if refusal is None:
            self._write_notes(parcels, steps)
            self._commit()
        return steps, refusal

    def _commit(self) -> None:
        self._do(self._producer.commit_transaction)
        self._open = False

    def _send(self, parcels: Sequence[Parcel]) -> tuple[list[Step], str | None]:
        """The steps, in order, or why the broker does not take one of them."""
        from confluent_kafka import KafkaException

        receipts: dict[int, Message] = {}
        failed: dict[int, KafkaError] = {}
        for index, parcel in enumerate(parcels):
            deliver = partial(_deliver, receipts, failed, index)
            try:
                self._produce(
                    self._topic,
                    parcel.value,
                    parcel.key,
                    parcel.candidate.letter.entry.partition % self._partitions,
                    headers=parcel.headers,
                    on_delivery=deliver,
                )
            except KafkaException as error:
                failed[index] = error.args[0]
        self._producer.flush(ANSWER)
        for refusal in failed.values():
            if _is_of_the_record(refusal):
                return [], refusal.str()
        if failed:
            raise _Aborted(_explain(next(iter(failed.values()))))
        if len(receipts) < len(parcels):
            raise _Aborted(
                "the broker did not acknowledge in time; nothing of this chunk was replayed, run it again"
            )
        return [
            Step(
                parcel.candidate.offsets,
                _key(receipts[index]),
                parcel.candidate.origin,
                parcel.candidate.number,
            )
            for index, parcel in enumerate(parcels)
        ], None

    def _write_notes(self, parcels: Sequence[Parcel], steps: Sequence[Step]) -> None:
        by_partition: dict[int, list[Step]] = defaultdict(list)
        for parcel, step in zip(parcels, steps, strict=True):
            by_partition[parcel.candidate.letter.partition].append(step)
        for number, noted in by_partition.items():
            value = msgspec.json.encode(msgspec.structs.replace(self._note, steps=noted))
            self._produce(self._dead_letters, value, None, number, headers=[(NOTE_HEADER, REPLAYED)])

    def _produce(
        self, topic: str, value: bytes | None, key: bytes | None, number: int, **options: Any
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, number, **options)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _do(self, call: Callable[[float], object]) -> None:
        """A call to the transaction's coordinator, again while it says that this may help."""
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + ANSWER
        while True:
            try:
                call(ANSWER)
                return
            except KafkaException as error:
                if error.args[0].retriable() and time.monotonic() < deadline:
                    self._producer.poll(0.2)
                    continue
                if error.args[0].txn_requires_abort():
                    raise _Aborted(_explain(error.args[0])) from None
                raise _refusal(error) from None


class _Aborted(StreamerError):
    """The broker gives the transaction up."""


def parcel(candidate: Candidate, message: Message, note: Note, id: str | None) -> Parcel:
    """The record as it came first, with where it came from. `id` for one whose id would change otherwise."""
    entry = candidate.letter.entry
    kept = [header for header in original(headers_of(message)) if not header[0].startswith(REPLAY_PREFIX)]
    ours = {
        "origin": candidate.origin,
        "timestamp": str(entry.timestamp),
        "number": str(candidate.number),
        "name": note.replay,
    }
    kept += [(REPLAY_PREFIX + name, value.encode()) for name, value in ours.items()]
    if id is not None:
        kept.append(("id", id.encode()))
    return Parcel(candidate, message.key(), message.value(), kept)


def chunks(parcels: Iterable[Parcel], rate: float | None) -> Iterator[list[Parcel]]:
    """As many as a transaction should hold: at a slow rate about a second's worth."""
    most = CHUNK_RECORDS if rate is None else max(1, min(CHUNK_RECORDS, int(rate)))
    chunk: list[Parcel] = []
    size = 0
    for one in parcels:
        weight = len(one.value or b"") + len(one.key or b"")
        if chunk and (len(chunk) >= most or size + weight > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += weight
    if chunk:
        yield chunk


def _deliver(
    receipts: dict[int, Message],
    failed: dict[int, KafkaError],
    index: int,
    error: KafkaError | None,
    message: Message,
) -> None:
    if error is None:
        receipts[index] = message
    else:
        failed[index] = error


def _key(receipt: Message) -> str:
    """As `Entry.key` of the record, should it die again."""
    return f"{receipt.topic()}:{receipt.partition()}:{receipt.offset()}@{receipt.timestamp()[1]}"


def _is_of_the_record(error: KafkaError) -> bool:
    return error.code() in (error.MSG_SIZE_TOO_LARGE, error.INVALID_MSG, error.INVALID_RECORD)


def _refusal(error: KafkaException) -> StreamerError:
    cause = error.args[0]
    if cause.code() in (cause._FENCED, cause.INVALID_PRODUCER_EPOCH, cause.PRODUCER_FENCED):
        return FatalError(
            "another replay of this group has taken over; what it found replayed it leaves alone"
        )
    return StreamerError(_explain(cause))


def _explain(error: KafkaError) -> str:
    denied = (error.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, error.TOPIC_AUTHORIZATION_FAILED)
    way_out = (
        "a replay needs Write on the input topic, the dead-letter topic and its transactional id"
        if error.code() in denied
        else "run it again: what was replayed is noted, and not repeated"
    )
    return f"the broker refused ({error.name()}: {error.str()}); {way_out}"
