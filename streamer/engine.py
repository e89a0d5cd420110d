"""The line. `step` calls four verbs; a record is in exactly one place between them:

    intake    source -> window       (decoded on the way; tombstones settle at once)
    dispatch  window -> planned -> worker   (claimed, tokenized on the way; duplicates and defects settle)
    settle    worker -> ledger -> sink      (in order, once all before it in its partition is settled)
    commit    published -> marked -> committed   (exactly once: published and committed -> marked)

One thread runs all of it. It owns every connection and never touches the model; what the worker does is in
`worker.py`. Records that fail leave the line as dead letters, inside the same order and the same commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from streamer.claims import Claims
from streamer.codec import Decoder
from streamer.errors import DeviceError, RecordError, TransientError
from streamer.ledger import Ledger
from streamer.limits import DeadLetterGuard, Limits
from streamer.metrics import Metrics
from streamer.observer import Observer
from streamer.outbox import GLANCE, Outbox
from streamer.planner import Plan
from streamer.protocols import Backend, DeadLetterQueue, Deduplicator, Sink, Source
from streamer.records import Outcome, Skip, TopicPartition
from streamer.recovery import Recovery
from streamer.sizing import TokenBudget
from streamer.suspects import Suspects
from streamer.verdicts import Judge
from streamer.window import Window
from streamer.worker import InlineWorker, ThreadWorker

log = logging.getLogger(__name__)

PLANNED_AHEAD = 2  # fewer planned batches, and the next window is closed: the worker must not wait for claims
PATIENCE = 0.1  # seconds for any wait at most: signals and rebalances are served at least this often


class Engine:
    """Takes records from `source` to `sink` by way of `worker`, and commits what has arrived."""

    def __init__(
        self,
        *,
        source: Source,
        sink: Sink,
        backend: Backend,
        worker: InlineWorker | ThreadWorker,
        decoder: Decoder,
        deduplicator: Deduplicator,
        dead_letters: DeadLetterQueue,
        window: Window,
        budget: TokenBudget,
        ledger: Ledger,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics = metrics or Metrics()
        self._source = source
        self._sink = sink
        self._worker = worker
        self._decoder = decoder
        self._window = window
        self._ledger = ledger
        self._limits = limits
        self._clock = clock
        self._judge = Judge(backend, budget, self.metrics, limits.retries, clock=clock, wall=wall)
        self._claims = Claims(deduplicator, dead_letters, self.metrics, clock)
        self._plan = Plan(budget)
        self._recovery = Recovery()
        self._suspects = Suspects(deduplicator, self._judge, self._recovery.line, clock, limits.max_attempts)
        guard = DeadLetterGuard(limits, dead_letters)
        self._outbox = Outbox(source, sink, self._claims, ledger, guard, wait=limits.revoke, clock=clock)
        self._observer = Observer(
            metrics, source=source, worker=worker, ledger=ledger, window=window, wall=wall
        )
        self._observer.queues.update(claims=self._claims, planned=self._plan, publishing=self._outbox)
        self._stopping = self._closed = False
        self._busy_at = clock()
        source.subscribe(self)

    def run(self, exit_when_idle: float | None = None) -> None:
        """Work until `stop`, or until there has been nothing to do for `exit_when_idle` seconds."""
        while not self._stopping:
            self.step()
            if exit_when_idle is not None and self.idle_for() >= exit_when_idle:
                if self._source.exhausted():
                    break
                self._busy_at = self._clock()
        self.drain()

    def stop(self) -> None:
        """Ask `run` to end after this step. Safe in a signal handler."""
        self._stopping = True

    def step(self) -> None:
        self.intake()
        self.dispatch()
        self.settle()
        self.commit()

    # -- the four verbs ------------------------------------------------------------------------------------

    def intake(self) -> None:
        """Poll the source, decode, fill the window."""
        self._keep_within_bounds()
        self._observer.step(self._clock())
        # A full window still takes a record a poll: polling must go on, and memory has a bound of its own.
        records = self._source.poll(max(1, self._window.room), self._time_to_poll())
        self.metrics.records += len(records)
        now = self._clock()
        for record in records:
            job = self._ledger.open(record, now)
            if record.value is None:
                job.settled = Skip("tombstone")
                continue
            try:
                job.id, text = self._decoder.decode(record)
                job.text, job.meta = text.text, text.meta
            except RecordError as error:
                job.defect = error
            self._window.add(job, now)
        if not records:
            self._claims.look(now)
            for partition, end in self._source.ends().items():
                self._ledger.advance(partition, end)

    def dispatch(self) -> None:
        """Tokenize what is claimed, plan batches. Claim the next window, offer batches to the worker."""
        self._plan.wake(self._clock())
        if self._claims and not self._plan.holds(PLANNED_AHEAD):
            claimed = self._judge.decoded(self._claims.take(GLANCE if self._starving else 0.0))
            if claimed:
                self._plan.add(*self._suspects.part(claimed))
        now = self._clock()
        if self._may_close(now):
            self._observer.window_closes(now)
            self._claims.ask(self._window.close(now))
        while self._worker.room > 0 and self._recovery.allows(self._clock(), self._worker.in_flight):
            batch = self._plan.next()
            if batch is None:
                break
            if not self._suspects.admit(batch, self._worker.in_flight):
                self._plan.again([batch])
                break
            if batch.jobs:
                self._recovery.offered(batch)
                self._worker.offer(batch)

    def settle(self) -> None:
        """Collect outcomes, release the settled prefix of every partition, publish it."""
        for outcome in self._worker.collect(self._time_to_collect()):
            self._take(outcome)
        if self._worker.busy_for() > self._limits.hang:
            raise DeviceError(f"a batch has been on the device for more than {self._limits.hang:g} s")
        release = self._ledger.release()
        if release is not None:
            self._outbox.publish(release)
        self._outbox.poll(0)

    def commit(self) -> None:
        """Mark what the sink has acknowledged, and commit it, in the order of publication."""
        self._observer.written(self._outbox.commit())

    # -- the assignment: called by the source, inside its poll, so always between two steps -----------------

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._outbox.returned(partitions)
        self._ledger.assign(partitions)
        self._observer.rebalanced("assigned", partitions)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish what the worker holds, commit it, and forget the rest: the next owner reads it again."""
        if not any(partition in self._ledger.lanes for partition in partitions):
            return  # let go of already: this engine is closing
        self._finish(self._limits.revoke)
        self._claims.leave(self._ledger.read(partitions))
        self._ledger.revoke(partitions)
        self._observer.rebalanced("revoked", partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._ledger.revoke(partitions)
        self._observer.rebalanced("lost", partitions)

    # -- the end ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Finish what the worker holds, publish and commit it, close everything. What waits is read again."""
        self.metrics.stage = "draining"
        self._window.clear()
        self._claims.drop()
        self._plan.clear()
        self._source.pause()
        try:
            if not self._finish(self._limits.drain):
                log.warning("drain ended at its deadline; what is unfinished will be read again")
            self.leave()
            self._source.flush(self._limits.revoke)
        except TransientError as error:
            log.warning("last commit failed; its records will be read again: %s", error)
        finally:
            self.close()

    def leave(self) -> None:
        """Note that what is unfinished killed nobody: this is the end by a decision of our own."""
        self._suspects.settle()
        self._claims.leave(self._ledger.read(self._ledger.lanes))

    def close(self) -> None:
        """Let go of everything, committing nothing. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._worker.close()
        self._ledger.revoke(list(self._ledger.lanes))
        self._outbox.clear()
        self._source.close()
        self._sink.close()

    def idle_for(self) -> float:
        """Seconds for which every assigned partition was read to its end and nothing was under way."""
        ends = self._source.ends()
        lanes = self._ledger.lanes
        if not lanes or self._outbox or any(lane.jobs or p not in ends for p, lane in lanes.items()):
            self._busy_at = self._clock()
        return self._clock() - self._busy_at

    # -- how long to wait, and for what ----------------------------------------------------------------------

    @property
    def _starving(self) -> bool:
        return not self._worker.in_flight and not self._plan

    def _may_close(self, now: float) -> bool:
        """A full window is claimed while there still is work; another when that runs out."""
        if self._claims or self._outbox.awaits:
            return False
        ahead = self._plan.holds(PLANNED_AHEAD)
        return self._window.full if ahead else self._window.ready(now, starving=self._starving)

    def _time_to_poll(self) -> float:
        """Wait for records only while nothing else can happen before they come."""
        if self._worker.in_flight or (self._claims.under_way and not self._plan):
            return 0.0
        if self._outbox:
            return GLANCE
        now = self._clock()
        if self._plan:
            until = self._recovery.line.until
        elif self._claims:
            until = self._claims.retry_at
        else:
            until = self._window.deadline(starving=True)
        return max(0.0, min(PATIENCE, until - now, self._plan.wakes_at - now))

    def _time_to_collect(self) -> float:
        if not self._worker.in_flight:
            return 0.0
        saturated = self._worker.room <= 0 and self._plan.holds(PLANNED_AHEAD) and self._window.full
        return PATIENCE if saturated else GLANCE

    def _keep_within_bounds(self) -> None:
        if not self.metrics.paused and self._ledger.full:
            self._source.pause()
            self.metrics.paused = True
        elif self.metrics.paused and self._ledger.bytes <= self._ledger.max_bytes // 2:
            self._source.resume()
            self.metrics.paused = False

    def _take(self, outcome: Outcome) -> None:
        self._suspects.settle()
        verdict = self._judge.judge(outcome)
        if verdict.answered:
            self._recovery.answered()
        if verdict.reason is None:
            self._plan.again(verdict.again)
            return
        self.metrics.retries["infer"] += 1
        again_at = self._recovery.failed(outcome.batch, verdict.reason, self._clock())
        self._plan.later(verdict.again, again_at)

    # -- leaving ---------------------------------------------------------------------------------------------

    def _finish(self, seconds: float) -> bool:
        """See what the worker holds and what is published through to the commit; False at the deadline."""
        deadline = self._clock() + seconds
        while self._worker.in_flight or self._outbox:
            if self._clock() >= deadline:
                return False
            self.settle()
            self.commit()
            self._outbox.poll(0 if self._worker.in_flight else GLANCE)
        return True
