"""Topics, workers that fail as planned, and the accounts at the end: what each fault test is made of."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import redis
from confluent_kafka import KafkaError, Message, Producer

from tests.conftest import MakeTopic
from tests.faults.auditor import Auditor, Copy, Place
from tests.faults.worker import Plan
from tests.integration.line import review
from tests.servers import KafkaServer

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0
LARGE = {"max.message.bytes": "3000000"}


def wait_until(done: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.01)


class Worker:
    """A worker process and its log."""

    def __init__(self, plan: Plan, config: dict[str, Any], folder: Path, name: str, *arguments: str) -> None:
        file = folder / f"{name}.yaml"
        file.write_bytes(msgspec.yaml.encode(config))
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "tests.faults.worker", msgspec.json.encode(plan).decode()]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "run", "--config", str(file), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def said(self, words: str) -> bool:
        return words in self.log.read_text("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.log.read_text('utf-8')}") from None


@dataclass(slots=True)
class Fault:
    """When something was broken, and what was marked as written by then: what may be written twice."""

    start: float
    marks: dict[int, int]
    end: float = 0.0


@dataclass(slots=True)
class Account:
    """What became of a world."""

    records: int
    faults: int
    lost: list[str]
    duplicated: int
    unexplained: list[str]
    delivery: str
    progress: float  # the longest time from the end of a fault to the next result, in seconds


class World:
    """`send` records, `start` workers, break things, `finish`."""

    def __init__(
        self,
        folder: Path,
        kafka: KafkaServer,
        redis_url: str,
        make_topic: MakeTopic,
        *,
        partitions: int = 4,
        topics: dict[str, str] | None = None,
        delivery: str = "at_least_once",
    ) -> None:
        self.folder, self.kafka, self.redis_url, self.partitions = folder, kafka, redis_url, partitions
        self.input = make_topic("texts.in", partitions, {**LARGE, **(topics or {})}, server=kafka)
        self.output = make_topic("sentiment.out", partitions, server=kafka)
        self.dead_letters = make_topic("texts.dlq", partitions, LARGE, server=kafka)
        self.group = f"group-{self.input}"
        self.exactly_once = delivery == "exactly_once"
        self.config: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": kafka.bootstrap_servers,
                "group_id": self.group,
                "properties": {"reconnect.backoff.max.ms": "500"},
                "consumer": {"session.timeout.ms": "3000", "heartbeat.interval.ms": "300"},
                "producer": {"transaction.timeout.ms": "5000"} if self.exactly_once else {},
            },
            "delivery": delivery,
            "topics": {"input": self.input, "output": self.output, "dead_letters": self.dead_letters},
            "redis": {"url": redis_url},
            "batching": {"max_texts": 16},
            "model": {"backend": "fake"},
            "fake": {"base_ms": 2.0, "per_text_us": 200.0},
        }
        self.places: dict[Place, str | None] = {}  # what was sent: its id, None for a tombstone
        self.bad: set[Place] = set()
        self.faults: list[Fault] = []
        self.report: Callable[[Account], None] = lambda account: None
        self.workers: list[Worker] = []
        self._dice = random.Random(7)
        self._next = 0
        self._producer = Producer(
            {"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": 4_000_000, "linger.ms": 5}
        )
        self.auditor = Auditor(
            kafka.bootstrap_servers,
            input=self.input,
            output=self.output,
            dead=self.dead_letters,
            group=self.group,
            partitions=partitions,
        )
        self.auditor.finished = self._finished
        self.auditor.start()

    # -- what goes in ----------------------------------------------------------------------------------------

    def send(self, count: int, text: str = "", *, bad: bool = False, partition: int | None = None) -> None:
        """Good records with ids of their own over all partitions; `bad` ones are expected to die."""
        for _ in range(count):
            number, self._next = self._next, self._next + 1
            value = {"id": f"review-{number}", "text": f"{text} {review(self._dice)}"}
            where = number % self.partitions if partition is None else partition
            self.produce(msgspec.json.encode(value), where, id=value["id"], bad=bad)
        self.flush()

    def send_broken(self, count: int) -> None:
        """Records that nobody can decode, and so without an id."""
        for _ in range(count):
            number, self._next = self._next, self._next + 1
            self.produce(b"not JSON %d" % number, number % self.partitions, id=f"broken-{number}", bad=True)
        self.flush()

    def produce(
        self,
        value: bytes | None,
        partition: int,
        *,
        id: str | None,
        bad: bool = False,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            place = partition, message.offset() or 0
            self.places[place] = id
            if bad:
                self.bad.add(place)

        self._producer.produce(
            self.input, value, key, partition, headers=list(headers), on_delivery=delivered
        )
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(DEADLINE) == 0

    # -- workers and faults ----------------------------------------------------------------------------------

    def start(self, *arguments: str, plan: Plan = Plan(), static: str = "", **sections: Any) -> Worker:  # noqa: B008
        """A worker; `sections` change its configuration, `static` is its group.instance.id."""
        config = {**self.config, **sections}
        config["kafka"] = kafka = dict(config["kafka"])
        if static:
            kafka["consumer"] = {**kafka["consumer"], "group.instance.id": static}
        if self.exactly_once:
            kafka.setdefault("transactional_id", f"{self.group}.{static or len(self.workers)}")
        worker = Worker(plan, config, self.folder, f"worker-{len(self.workers)}", *arguments)
        self.workers.append(worker)
        return worker

    def broken(self) -> Fault:
        """Something breaks now; set its `end` when it is whole again."""
        fault = Fault(time.time(), self.marks())
        self.faults.append(fault)
        return fault

    def crashed(self, worker: Worker) -> int:
        """Wait until it has died of its fault; its exit code."""
        code = worker.wait()
        committed, marks = self.auditor.committed(), self.marks()
        early = {p: offset for p, offset in committed.items() if offset > marks.get(p, 0)}
        assert self.exactly_once or not early, f"committed {early} and marked {marks}: the mark comes first"
        self.faults.append(Fault(0.0, marks, time.time()))
        return code

    def kill(self, worker: Worker) -> None:
        worker.process.kill()
        self.crashed(worker)

    def marks(self) -> dict[int, int]:
        """What Redis holds as written: the offset after it, by partition."""
        try:
            with redis.Redis.from_url(self.redis_url, socket_timeout=1) as client:
                written: Any = client.hgetall(f"{{streamer:{self.group}}}:written")
        except redis.RedisError:
            return {}
        return {int(field.rpartition(b":")[2]): int(offset) for field, offset in written.items()}

    # -- what comes out --------------------------------------------------------------------------------------

    @property
    def results(self) -> int:
        """Places that have a result."""
        return len(self.auditor.results)

    @property
    def done(self) -> bool:
        return all(self._finished(place) for place in self.places)

    def wait_results(self, more: int, *workers: Worker) -> None:
        """Until there are so many more results; `workers` must be alive all the while."""
        target = self.results + more

        def there() -> bool:
            for worker in workers:
                assert worker.runs, worker.log.read_text("utf-8")
            return self.results >= target or self.done

        wait_until(there, f"{more} more results")

    def finish(self, *, exit_codes: tuple[int, ...] = (0,), twice: bool = False) -> Account:
        """Wait for the end of the work, drain the workers, and balance the accounts.

        `twice` allows duplicates that nothing explains, where what was marked is not known.
        """
        wait_until(lambda: self._sound and self.done, "all records to be accounted for", 2 * DEADLINE)
        ends = self.auditor.ends(self.input)
        expected = {number: ends[self.input, number] for number in range(self.partitions)}
        wait_until(lambda: self.auditor.latest == expected, f"I3: all of {expected} to be committed")
        for worker in self.workers:
            # Before it has joined it may not handle signals yet.
            wait_until(lambda: not worker.runs or worker.said("partitions assigned"), "a worker to join")  # noqa: B023
            if worker.runs:
                worker.signal(signal.SIGTERM)
        for worker in self.workers:
            if worker.process.returncode is None:
                assert worker.wait() in exit_codes, worker.log.read_text("utf-8")
        self.auditor.stop()
        assert self.auditor.samples > 0
        assert self.auditor.violations == [], "I4"
        committed = self.auditor.committed()
        assert committed == expected, f"I3: {committed} of {expected}\n{self._last_words()}"
        account = self._balance()
        self.report(account)
        assert account.lost == [], f"I1: {account.lost[:10]}"
        if not twice:
            assert account.unexplained == [], f"I7: {account.unexplained[:10]}"
        return account

    @property
    def _sound(self) -> bool:
        """True; raises as soon as a commit passed an open record: that one will never be accounted for."""
        assert self.auditor.violations == [], "I4"
        return True

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
        self.auditor.close()

    def _last_words(self) -> str:
        return "\n\n".join("\n".join(w.log.read_text("utf-8").splitlines()[-20:]) for w in self.workers[-2:])

    def _finished(self, place: Place) -> bool:
        if place in self.auditor.dead:
            return True
        id = self.places.get(place)
        return id is None or id in self.auditor.ids

    def _balance(self) -> Account:
        lost, auditor = [], self.auditor
        for place, id in self.places.items():
            if place in self.bad:
                if place not in auditor.dead or place in auditor.results:
                    lost.append(f"{place}: bad, and not only in the dead letters")
            elif id is not None and (id not in auditor.ids or place in auditor.dead):
                lost.append(f"{place}: {id} has no result, or is dead: {auditor.reasons.get(place)}")
        duplicated, unexplained = 0, []
        for place, copies in [*auditor.results.items(), *auditor.dead.items()]:
            duplicated += len(copies) - 1
            for before, after in itertools.pairwise(copies):
                if not self._explained(place, before, after):
                    unexplained.append(f"{place}: {before} and {after}")
        for id, places in auditor.ids.items():
            if len(places) > 1:
                duplicated += len(places) - 1
                unexplained.append(f"{id} has results from {places}")
        return Account(
            len(self.places),
            len(self.faults),
            lost,
            duplicated,
            unexplained,
            self.config["delivery"],
            self._slowest_progress(),
        )

    def _explained(self, place: Place, before: Copy, after: Copy) -> bool:
        """A fault lies between the two, and it found the record unmarked."""
        if self.exactly_once:
            return False  # nothing explains it
        return any(
            fault.marks.get(place[0], 0) <= place[1]
            for fault in self.faults
            if after.at + 0.01 >= fault.start and before.at <= (fault.end or time.time()) + 0.01
        )

    def _slowest_progress(self) -> float:
        times = sorted(copy.at for copies in self.auditor.results.values() for copy in copies)
        slowest, position = 0.0, 0
        for end in sorted(fault.end for fault in self.faults if fault.end):
            while position < len(times) and times[position] < end:
                position += 1
            if position < len(times):
                slowest = max(slowest, times[position] - end)
        return slowest
