"""What is published and not yet committed: publish -> mark -> commit, in that order (invariant 2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from itertools import takewhile

from streamer.claims import Claims
from streamer.errors import DeadLetterLimit
from streamer.ledger import Ledger
from streamer.limits import DeadLetterGuard
from streamer.protocols import Sink, Source
from streamer.records import Release, TopicPartition

GLANCE = 0.005  # seconds to wait for an acknowledgement at a time


class Outbox:
    """Releases on their way through the sink, in order. Its length is how many are under way.

    What is under way when its partition goes is marked once it is written, but not committed: that is up to
    the new owner. Should that be this very process, `awaits` says that the records which come back have to
    wait: whether they were written is not known before what was published earlier has arrived.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        claims: Claims,
        ledger: Ledger,
        guard: DeadLetterGuard,
        *,
        wait: float,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._sink = sink
        self._claims = claims
        self._ledger = ledger
        self._guard = guard
        self._last_wait = wait
        self._clock = clock
        self._releases: deque[Release] = deque()
        self._awaited: Release | None = None

    def __len__(self) -> int:
        return len(self._releases)

    @property
    def awaits(self) -> bool:
        return self._awaited is not None

    def publish(self, release: Release) -> None:
        """Hand a release to the sink. Raises DeadLetterLimit instead if there are too many dead in it."""
        try:
            self._guard.check(release.jobs)
        except DeadLetterLimit:
            # This is the end. What came before is on its way, and the next run need not write it again.
            deadline = self._clock() + self._last_wait
            while self._releases and self._clock() < deadline:
                self.poll(GLANCE)
                self.commit()
            raise
        self._sink.publish(release)
        self._releases.append(release)

    def poll(self, timeout: float) -> None:
        """Let the sink work. Raises DeadLetterLimit instead if its topics refuse too many results."""
        if self._sink.refused:
            try:
                self._guard.refuse(self._sink.refused)
            except DeadLetterLimit:
                while self.commit(GLANCE) or self._claims.marking:
                    pass  # the next run need not write it again
                raise
            self._sink.refused.clear()
        self._sink.poll(timeout)

    def commit(self, timeout: float = 0.0) -> list[Release]:
        """Mark what the sink has acknowledged, and commit what is marked, in the order of publication.

        Waits up to `timeout` seconds for the mark. Returns what is committed.
        """
        written = list(takewhile(_acknowledged, self._releases))
        marked = written[: self._claims.mark(written, timeout)]
        self._guard.arrived(marked)
        for release in marked:
            if not release.committed:
                self._source.commit(release.offsets)
            self._ledger.give_back(release)
            self._releases.popleft()
            if release is self._awaited:
                self._awaited = None
        return marked

    def returned(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are assigned: wait for what is under way of an earlier assignment."""
        for release in self._releases:
            if any(lane.partition in partitions for lane in release.reach):
                self._awaited = release

    def clear(self) -> None:
        """Forget what is under way: it is neither marked nor committed."""
        self._releases.clear()


def _acknowledged(release: Release) -> bool:
    return not release.unacknowledged
