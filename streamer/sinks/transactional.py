"""Exactly once: results, dead letters and the offsets of their records in one Kafka transaction.

A transaction takes whole releases, as they come, until `interval` has passed since the last one ended; then
the offsets join it and it is committed. Nobody who reads `read_committed` sees a part of it. What the sink
does next is a method, `_step`, and `poll` calls it; none blocks for long:

    _initialise -> _await -> _recover -> _work -> _send_offsets -> _await_offsets -> _commit -> _work
                                           ^          |    |            |               |
                                           +- _abort <-----+------------+    _reopen <--+-> _initialise

- An abort keeps the releases: they are written again, without another inference. Only what belongs to a
  partition that has gone is dropped; its new owner redoes it.
- A request that may have been sent twice could still arrive in the middle of the next transaction, and the
  epoch of this producer would let it in. So after a slow or disturbed answer comes a new producer.
- Fenced: the broker ran out of patience with a transaction (a pause, an outage), and a new producer takes
  over; or another worker has this transactional id, and one of the two must end.
- When no answer says whether a commit happened, the committed offsets do: they bear its name.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaError

from streamer.backoff import Backoff
from streamer.errors import FatalError, TransientError
from streamer.metrics import Metrics
from streamer.records import Envelope, Job, Release
from streamer.sinks.calls import RAISED, Call, cause
from streamer.sinks.topics import Topics
from streamer.sinks.transaction import Group, Transaction, completed
from streamer.sinks.writer import MUDDLED, Outgoing, Writer

log = logging.getLogger(__name__)

# Seconds: a call that can be resumed, and how long an answer may take that came only once.
GLANCE, PROMPT, CLOSING = 0.005, 1.0, 2.0


class TransactionalSink:
    """Publishes releases and commits their offsets. Acknowledges a release when its transaction is committed.

    `transactional_id` belongs to one worker at a time, and best to the same one after a restart.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topics: Topics,
        *,
        transactional_id: str,
        group: Group,
        encode: Callable[[Job], Envelope],
        metrics: Metrics | None = None,
        interval: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics = metrics or Metrics()
        merged = {**completed(settings), "transactional.id": transactional_id}
        self._timeout = int(merged["transaction.timeout.ms"]) / 1000
        self.refused: list[Job] = []
        # Written is not enough: it has to be committed.
        told: dict[str, Any] = {"written": lambda _: None, "failed": self._failed, "refused": self.refused}
        self._new_writer = partial(Writer, merged, topics, encode=encode, metrics=metrics, wall=wall, **told)
        self._id = transactional_id
        self._group = group
        self._interval = interval
        self._clock = clock
        self._backoff = Backoff(initial=0.1)
        self._waiting: deque[Release] = deque()  # not in a transaction yet
        self._transaction: Transaction | None = None
        self._undecided = False  # nobody said whether it was committed
        self._due = self._ending = 0.0
        self._writer = self._new_writer()
        self._call: Call
        self._step: Callable[[], None] = self._initialise

    def publish(self, release: Release) -> None:
        release.unacknowledged = 1
        self._waiting.append(release)

    def poll(self, timeout: float) -> None:
        self._writer.poll(timeout)
        if self._writer.fatal is not None and self._step != self._reopen:
            self._lost(self._writer.fatal)
        if self._backoff.ready(self._clock()):
            self._step()

    def close(self) -> None:
        """Leave no transaction open: its readers would wait until the broker gives it up."""
        producer = self._writer.producer
        before = self._initialise, self._await, self._recover, self._reopen  # the producer has begun none
        try:
            if self._step == self._commit:
                producer.commit_transaction(CLOSING)
            elif self._transaction and self._step not in before:
                producer.abort_transaction(CLOSING)
        except RAISED as error:
            log.warning("the broker has %g s to end the last transaction itself: %s", self._timeout, error)
        self._writer.close()

    # -- what comes next -------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        """Fence whoever had this id before, and wait until its last transaction has ended."""
        self._call = Call(self._writer.producer.init_transactions, self._timeout, clock=self._clock)
        self._step = self._await

    def _await(self) -> None:
        if not self._answered():
            return
        self._step = self._recover
        if (error := self._call.error()) is None:
            self._step()
        elif error.fatal():
            self._lost(error)
        else:
            self._wait(f"producer: trying again after {error.name()}: {error.str()}")
            self._step = self._reopen

    def _recover(self) -> None:
        if self._transaction is not None:
            try:
                happened = self._undecided and self._transaction.happened(self._group)
            except TransientError as error:
                self._wait(f"was the last transaction committed? Asking again: {error}")
                return
            (self._committed if happened else self._again)(self._transaction)
        self._undecided = False
        self._step = self._work

    def _work(self) -> None:
        filled = self._fill()
        if self._transaction is None:
            return
        if self._transaction.broken:
            self._give_up(self._transaction)
        elif filled and self._clock() >= self._due:
            self._ending = self._clock()
            self._writer.disturbed = False
            self._step = self._send_offsets
            self._step()

    def _send_offsets(self) -> None:
        transaction = self._open_transaction
        if transaction.outdated:
            self._give_up(transaction)
        elif not (positions := transaction.sign()):
            self._step = self._commit
        elif (membership := self._group.membership()) is None:
            self._give_up(transaction, "this worker is no member of its group")
        else:
            send = self._writer.producer.send_offsets_to_transaction
            self._call = Call(send, positions, membership, self._timeout, clock=self._clock)
            self._step = self._await_offsets

    def _await_offsets(self) -> None:
        if not self._answered():
            return
        self._step = self._send_offsets
        if (error := self._call.error()) is not None:
            self._decide(error)
        else:
            self._step = self._commit
            self._step()

    def _commit(self) -> None:
        if self._did(partial(self._writer.producer.commit_transaction, GLANCE)):
            self._committed(self._open_transaction)
            self._step = self._reopen if self._doubtful else self._work

    def _abort(self) -> None:
        if self._did(partial(self._writer.producer.abort_transaction, GLANCE)):
            self._again(self._open_transaction)
            self._step = self._reopen if self._doubtful else self._work

    def _reopen(self) -> None:
        self._writer.close()
        del self._writer.producer  # it and its callbacks hold each other; without this its threads live on
        self._writer = self._new_writer()
        if self._transaction is not None:
            self._transaction.begun = self._clock()  # fenced once more, it would be by another worker
        self._step = self._initialise

    # -- how it gets there -----------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Hand what waits to the producer, in order; whether all of it went."""
        while self._transaction is None or self._transaction.fill(self._writer):
            if not self._waiting:
                return True
            if self._transaction is None:
                if not self._did(self._writer.producer.begin_transaction):
                    return False
                self._transaction = Transaction(self._clock(), self._metrics)
            self._transaction.take(self._waiting.popleft(), self._writer)
        return False

    def _answered(self) -> bool:
        """Whether the call under way is answered. After a broker's death that may never be."""
        answered = self._call.answered
        if not answered and self._call.seconds > self._timeout + PROMPT:
            self._wait(f"{self._call.name} got no answer; going on with a new producer")
            self._step = self._reopen
        return answered

    @property
    def _open_transaction(self) -> Transaction:
        assert self._transaction is not None
        return self._transaction

    @property
    def _overdue(self) -> bool:
        """Whether the broker has ended the transaction by now: librdkafka may wait for an answer for ever."""
        return self._transaction is not None and self._clock() - self._transaction.begun > self._timeout

    @property
    def _doubtful(self) -> bool:
        """Whether a request may have been sent twice while the transaction ended."""
        return self._writer.disturbed or self._clock() - self._ending > PROMPT

    def _committed(self, transaction: Transaction) -> None:
        transaction.commit(self._clock())
        self._transaction = None
        self._backoff.succeed()
        self._due = self._clock() + self._interval

    def _give_up(self, transaction: Transaction, why: str | None = None) -> None:
        """Abort, and write the same again: at once, or after a while if there is a `why`."""
        transaction.fail(why)
        self._ending = self._clock()
        self._step = self._abort

    def _again(self, transaction: Transaction) -> None:
        if transaction.why is not None:
            self._wait(f"transaction aborted, the same again: {transaction.why}", logging.ERROR)
        self._waiting.extendleft(reversed(transaction.releases))
        transaction.end("aborted", self._clock())
        self._transaction = None

    def _failed(self, message: Outgoing, error: KafkaError, again: bool) -> None:
        if self._step == self._abort:
            return  # given up, not failed
        why = None if again else self._writer.explain(message.job, error)
        self._open_transaction.fail(why)

    # -- what went wrong -------------------------------------------------------------------------------------

    def _did(self, call: Callable[[], None]) -> bool:
        """Whether a call of the producer went through; if not, what comes next is decided."""
        try:
            call()
            return True
        except RAISED as raised:
            self._decide(cause(raised))
            return False

    def _decide(self, error: KafkaError) -> None:
        """What comes next, after a call of the producer failed."""
        transaction = self._transaction
        if error.fatal() or self._overdue:
            self._lost(error)
        elif error.txn_requires_abort() and transaction is not None:
            # A failed message has given its own reason already, or needs none.
            self._give_up(transaction, None if transaction.broken else f"{error.name()}: {error.str()}")
        elif error.code() == KafkaError._TIMED_OUT:
            pass  # the same call resumes at the next poll
        elif error.retriable():
            self._wait(f"producer: trying again after {error.name()}: {error.str()}")
        else:
            raise FatalError(f"producer: {error.name()}: {error.str()}")

    def _wait(self, why: str, level: int = logging.WARNING) -> None:
        wait = self._backoff.fail(self._clock())
        log.log(level, "%s (in %.1f s)", why, wait)

    def _lost(self, error: KafkaError) -> None:
        """This producer is of no use any more: go on with a new one, or end."""
        said = f"{error.name()}: {error.str()}"
        if self._transaction is not None and error.code() in MUDDLED:
            self._wait(f"producer: {said}; going on with a new producer")
        elif self._overdue:
            log.warning("the broker has given up a transaction; going on with a new producer: %s", said)
        else:
            raise FatalError(
                f"producer: {said}. If another worker has the transactional id {self._id} too, give each a "
                "kafka.transactional_id of its own"
            )
        self._undecided = self._undecided or self._step == self._commit
        self._step = self._reopen
