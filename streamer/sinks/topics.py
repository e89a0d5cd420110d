"""The topics that a sink writes to, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamer.records import Delay, Envelope, Job, Result

# Bytes that Kafka's format puts around a batch, a record and a header, at most.
BATCH, RECORD, HEADER = 61, 36, 10


class Topics(NamedTuple):
    """`retries` has a topic for each level of delay, `partitions` how many each topic has.

    `limits` are the bytes that a batch may have, of the topics of which that is known (`max.message.bytes`).
    """

    results: str
    dead_letters: str
    partitions: Mapping[str, int]
    retries: Sequence[str] = ()
    limits: Mapping[str, int] = {}

    def of(self, job: Job) -> str:
        if isinstance(job.settled, Result):
            return self.results
        return self.retries[job.settled.level - 1] if isinstance(job.settled, Delay) else self.dead_letters

    def may_refuse(self, topic: str, envelope: Envelope) -> bool:
        """Whether it is too large for its topic, unless it is compressed."""
        return topic in self.limits and batch_bytes(envelope) > self.limits[topic]


def batch_bytes(envelope: Envelope) -> int:
    """The most that a message takes on its way, when it is alone in its batch and not compressed."""
    key, value, headers, _ = envelope
    size = BATCH + RECORD + len(key or b"") + len(value or b"")
    for name, content in headers:
        size += HEADER + len(name.encode()) + len(content or b"")
    return size
