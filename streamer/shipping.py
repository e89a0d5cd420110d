"""Chunks of messages, each of them whole or not at all: a Kafka transaction for each.

For what is published outside of the line: replays of dead letters, and records whose delay is over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from streamer.errors import FatalError, StreamerError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

SETTINGS: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    "transaction.timeout.ms": 60_000,
    # Below the transaction's own: a record that the broker does not take must not outlive it.
    "message.timeout.ms": 30_000,
    "message.max.bytes": 16_000_000,
}
# librdkafka loses count of its sequence numbers after a message that was refused: the transaction after it is
# aborted too, and the one after that is well.
ATTEMPTS = 4
GLANCE = 0.02
CHUNK_RECORDS, CHUNK_BYTES = 500, 8 << 20


class Addressed(NamedTuple):
    """A message and where it goes; it gets the time of writing."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @property
    def size(self) -> int:
        return len(self.value or b"") + len(self.key or b"")


class Parcel(Protocol):
    """What carries a message."""

    @property
    def message(self) -> Addressed: ...


P = TypeVar("P", bound=Parcel)


class Aborted(StreamerError):
    """The broker gives the transaction up."""


class Shipper:
    """One transactional producer. `answer` is how many seconds the broker has for each of its answers.

    `explain` says what an error of the broker means, and what to do; `fenced` what it is that has taken over.
    """

    def __init__(
        self, producer: Producer, *, answer: float, explain: Callable[[KafkaError], str], fenced: str
    ) -> None:
        self._producer = producer
        self._answer = answer
        self._explain = explain
        self._fenced = fenced
        self._open = False

    def begin(self) -> None:
        """End what another one with this transactional id has open. Before it, no bound may be taken."""
        self.do(self._producer.init_transactions)

    def ship(
        self,
        parcels: Sequence[P],
        *,
        finish: Callable[[Sequence[P], Sequence[Message]], None],
        done: Callable[[Sequence[P], Sequence[Message]], None],
        refuse: Callable[[P, str], None],
    ) -> None:
        """See a chunk through to its commit.

        `finish` adds what belongs into the same transaction, `done` hears what was committed. The broker
        refuses whole batches for one message that is too large: halving finds the one, and `refuse` hears of
        it before anything behind it goes. Raises Aborted when the rest was not written.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                receipts, refusal = self._transact(parcels, finish)
                break
            except Aborted:
                self.abort()
                if attempt == ATTEMPTS:
                    raise
        if refusal is None:
            done(parcels, receipts)
            return
        self.abort()
        if len(parcels) == 1:
            refuse(parcels[0], refusal)
            return
        half = len(parcels) // 2
        for part in parcels[:half], parcels[half:]:
            self.ship(part, finish=finish, done=done, refuse=refuse)

    def send_offsets(self, positions: list[TopicPartition], membership: Any) -> None:
        """The consumer's offsets, into the transaction that is open."""
        self.do(partial(self._producer.send_offsets_to_transaction, positions, membership))

    def produce(self, message: Addressed, on_delivery: Any = None) -> None:
        """Hand a message to the transaction that is open."""
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    message.partition,
                    headers=message.headers,  # type: ignore[arg-type]  # no str is in this list
                    on_delivery=on_delivery,
                )
                return
            except BufferError:
                self.poll(0.1)

    def poll(self, timeout: float) -> None:
        """Serve acknowledgements. What is fatal the next call to the coordinator says too, and better."""
        from confluent_kafka import KafkaError, KafkaException

        fatal: Any = (KafkaException, KafkaError)  # librdkafka raises the error itself, which is no Exception
        with contextlib.suppress(fatal):
            self._producer.poll(timeout)

    def wait_until(self, deadline: float) -> None:
        """On the monotonic clock."""
        while (left := deadline - time.monotonic()) > 0:
            self.poll(min(left, 0.1))

    def abort(self) -> None:
        """Nothing of an open transaction will be seen."""
        if self._open:
            self._open = False
            self.do(self._producer.abort_transaction, GLANCE)

    def commit(self) -> None:
        self.do(self._producer.commit_transaction)
        self._open = False

    def do(self, call: Callable[[float], object], at_once: float | None = None) -> None:
        """A call to the transaction's coordinator, again while it says that this may help.

        It has `at_once` seconds, or else all of the time. An abort needs what `poll` serves in between.
        """
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + self._answer
        while True:
            try:
                call(self._answer if at_once is None else at_once)
                return
            except KafkaException as error:
                if error.args[0].retriable() and time.monotonic() < deadline:
                    self.poll(at_once or 0.2)
                    continue
                if error.args[0].txn_requires_abort():
                    raise Aborted(self._explain(error.args[0])) from None
                raise self._refusal(error) from None

    def _transact(
        self, parcels: Sequence[P], finish: Callable[[Sequence[P], Sequence[Message]], None]
    ) -> tuple[list[Message], str | None]:
        """The receipts, in order, or why the broker does not take one of them."""
        self.do(lambda timeout: self._producer.begin_transaction())
        self._open = True
        receipts, refusal = self._send([parcel.message for parcel in parcels])
        if refusal is None:
            finish(parcels, receipts)
            self.commit()
        return receipts, refusal

    def _send(self, messages: Sequence[Addressed]) -> tuple[list[Message], str | None]:
        from confluent_kafka import KafkaException

        receipts: dict[int, Message] = {}
        failed: dict[int, KafkaError] = {}
        for index, message in enumerate(messages):
            try:
                self.produce(message, partial(_deliver, receipts, failed, index))
            except KafkaException as error:
                failed[index] = error.args[0]
        deadline = time.monotonic() + self._answer
        while not failed and len(receipts) < len(messages) and time.monotonic() < deadline:
            self.poll(0.1)
        for refusal in failed.values():
            if is_of_the_record(refusal):
                return [], refusal.str()
        if failed:
            raise Aborted(self._explain(next(iter(failed.values()))))
        if len(receipts) < len(messages):
            raise Aborted("the broker did not acknowledge in time; nothing of this chunk was written")
        return [receipts[index] for index in range(len(messages))], None

    def _refusal(self, error: KafkaException) -> StreamerError:
        cause = error.args[0]
        if cause.code() in (cause._FENCED, cause.INVALID_PRODUCER_EPOCH, cause.PRODUCER_FENCED):
            return FatalError(self._fenced)
        return StreamerError(self._explain(cause))


def is_of_the_record(error: KafkaError) -> bool:
    """Whether the message is to blame, and not the broker's health."""
    return error.code() in (error.MSG_SIZE_TOO_LARGE, error.INVALID_MSG, error.INVALID_RECORD)


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
