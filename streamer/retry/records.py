"""What lies in a retry topic: a record as it came, when it is due, and where it came from."""

from __future__ import annotations

from msgspec import Struct

from streamer.codec import DEAD_LETTER_PREFIX, Decoder, encode
from streamer.delays import Past, number, told
from streamer.errors import RecordError
from streamer.ledger import Lane
from streamer.records import DeadLetter, Job, Record, TopicPartition
from streamer.shipping import Addressed


class Delayed(Struct, frozen=True, gc=False):
    """A record that waits. `found` is where it lies, `record` as it was read from the input topic.

    `due` is in milliseconds since the epoch; what streamer did not write there is due at once.
    """

    found: Record
    record: Record
    due: int
    model: str

    @classmethod
    def of(cls, found: Record) -> Delayed:
        fields = told(found)
        record = Record(
            fields.get("topic", found.topic),
            number(fields.get("partition", str(found.partition))),
            number(fields.get("offset", "")),
            number(fields.get("timestamp", "")),
            found.key,
            found.value,
            found.headers,
            found.defect,
        )
        return cls(found, record, number(fields.get("due", "")), fields.get("model", ""))

    def claim(self, decoder: Decoder) -> Job | None:
        """What holds its id, should the worker have died before it could give that back; None without one."""
        try:
            id = decoder.decode(self.record)[0]
        except RecordError:
            return None
        return Job(self.record, Lane(TopicPartition(self.record.topic, self.record.partition)), 0, id)

    @property
    def reason(self) -> str:
        """Why it would be dead."""
        return self.found.defect.reason if self.found.defect else "retry_too_large"

    def letter(self, why: str, at: int) -> Job:
        """The dead letter of one that cannot go back."""
        record = self.found if self.found.defect else self.record
        past = Past.of(record)
        dead = DeadLetter(self.reason, "RetryError", why, "retry", max(1, past.attempts), self.model, at)
        return Job(record, Lane(TopicPartition(record.topic, record.partition)), 0, settled=dead)


class Parcel(Struct, frozen=True, gc=False):
    """A delayed record with the message that goes out for it."""

    delayed: Delayed
    message: Addressed


def back(delayed: Delayed, topic: str, partitions: int) -> Parcel:
    """To the partition that it came from, with all that it brought; the time is that of its return."""
    found = delayed.found
    headers = [header for header in found.headers if not header[0].startswith(DEAD_LETTER_PREFIX)]
    where = delayed.record.partition % partitions
    return Parcel(delayed, Addressed(topic, where, found.key, found.value, headers))


def buried(delayed: Delayed, job: Job, topic: str, partitions: int) -> Parcel:
    """To the dead letters."""
    key, value, headers, _ = encode(job)
    return Parcel(delayed, Addressed(topic, job.record.partition % partitions, key, value, headers))
