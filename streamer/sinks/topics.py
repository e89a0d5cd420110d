"""The topics that a sink writes to, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamer.records import Delay, Job, Result


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
