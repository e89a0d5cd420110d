"""Claims in Redis: one round trip a window, which nobody waits for.

The claim of an id is the coordinate of the record that came first with it. A plain `SET NX` loses records:
after a lost reply, or a crash, the retry looks like a duplicate of itself. Here whoever asks with the same
coordinate goes on, as often as it takes, until its result is published and the claim says so.

    no claim                    claim it, go on
    my coordinate               go on (a redelivery, or the answer to the first call was lost)
    my coordinate, written      skip: redelivered
    another coordinate          skip: duplicate
    another that gave it back   claim it, go on: the replay of a dead letter, or its correction

A dead or delayed record gives its claim back by a sign on it, and the claim stays: should that record be read
again because its commit did not happen, it is known to be written and does not die twice. One that could not
be decoded has no id, and claims its own coordinate for the same reason.

What is written is one offset a partition, not a mark a claim: results leave in order, so all below it is
written too. That makes the mark as cheap as the commit that it precedes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Literal
from zlib import crc32

import msgspec
import redis

from streamer.errors import StartupError, TransientError
from streamer.metrics import Metrics
from streamer.protocols import Answer
from streamer.records import Job, Record, TopicPartition
from streamer.state.connection import FAILURES, Client, members, refusal, transient
from streamer.state.scripts import CLAIM, MARK, SIGN
from streamer.state.slots import SLOTS, hash_tag, spread
from streamer.state.wires import Later, Wires

log = logging.getLogger(__name__)

CHUNK = 3000  # ids a call: Lua unpacks no more than about 8,000 values, and each brings its coordinate
LONGEST_ID = 40  # characters of an id kept as they are; of a longer one it is the hash, 41 with its name
LOOK = 5.0  # seconds between two looks at a Redis that nobody asks for anything
FREE = "!"  # on a claim that was given back. No coordinate ends so.

_pack = msgspec.msgpack.encode


class RedisDeduplicator:
    """Claims, kept for `ttl` seconds or up to twice as long, under `prefix`.

    `generations` maps a topic to what tells it from one of the same name that was deleted: without it, old
    claims would swallow the records of a topic that was created anew.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str,
        ttl: int,
        generations: Mapping[str, str],
        on_outage: Literal["wait", "process"] = "wait",
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._client = client
        self._wires = Wires(client)
        tag = hash_tag(prefix)
        tags = spread(prefix) if isinstance(client, redis.RedisCluster) else [tag]
        self._claims = [[f"{tag}:claims", f"{tag}:claims:before"] for tag in tags]
        self._tried = [f"{tag}:tried", f"{tag}:tried:before"]
        self._written, self._starts, self._left = (f"{tag}:{name}" for name in ("written", "starts", "left"))
        self._ttl = ttl
        self._kept = 2 * ttl  # as long as a claim may live, and so what is said of it
        self._generations = generations
        self._on_outage = on_outage
        self._look_at = 0.0
        self._claim = client.register_script(CLAIM)
        self._sign = client.register_script(SIGN)
        self._mark = client.register_script(MARK)

    def check(self) -> None:
        """Raises StartupError when Redis is away, refuses what it will be asked, or would drop claims."""
        try:
            for member in members(self._client):
                self._check_eviction(member.name, member.client.info("memory"))
            self._metrics.redis_up = True
            # What a window asks for, so that a user without the rights is told now, not by a line that waits.
            one = _pack([["id"], ["coordinate"]])
            for _ in range(2):  # the second finds that the first is as old as it may become
                self._claim(keys=self._tried, args=[0, 1, one, 0])
            self._sign(keys=self._tried, args=[one, "", FREE])
            self._mark(keys=[self._written], args=[self._kept])
            self._client.hgetall(self._left)
        except FAILURES as error:
            raise refusal(error) from error

    def _check_eviction(self, name: str, memory: Mapping[str, Any]) -> None:
        policy = memory.get("maxmemory_policy", "noeviction")
        if int(memory.get("maxmemory", 0)) and policy != "noeviction":
            raise StartupError(
                f"Redis at {name} evicts keys (maxmemory-policy {policy}), and a claim that is dropped lets "
                "duplicates through: set it to noeviction, or deduplication.enabled: false"
            )

    def claim(self, jobs: Sequence[Job]) -> Answer[list[str | None]]:
        groups, calls = self._calls(jobs)
        twice = int(len({job.id for job in jobs}) < len(jobs))
        answers = self._wires.call(
            self._claim, [(keys, [self._ttl, self._kept, packed, twice]) for keys, packed in calls]
        )
        return Later(answers, partial(self._judge, jobs, groups))

    def mark(self, offsets: Mapping[TopicPartition, int]) -> Answer[bool]:
        args: list[bytes | int | str] = [self._kept]
        for (topic, partition), offset in offsets.items():
            args += [self._place(topic, partition), offset]
        return Later(self._wires.call(self._mark, [([self._written], args)]), self._marked)

    def give_back(self, jobs: Iterable[Job]) -> None:
        # What could not be decoded is claimed by its coordinate, which nobody else asks for.
        for answer in self._change([job for job in jobs if job.id], "", FREE):
            if isinstance(answer, TransientError):
                self._wait_or_log("give_back", answer)

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        if offsets:
            left: Any = {self._place(*partition): at for partition, at in offsets.items()}
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(self._left, mapping=left)
            pipeline.expire(self._left, self._kept)
            transient(pipeline.execute)

    def begin(self, job: Job) -> int:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hincrby(self._starts, self._coordinate(job.record), 1)
        pipeline.expire(self._starts, self._kept)
        return int(transient(pipeline.execute)[0])

    def end(self, job: Job) -> None:
        transient(lambda: self._client.hdel(self._starts, self._coordinate(job.record)))

    def look(self, now: float) -> None:
        if now < self._look_at:
            return
        # One that is away may take the whole time-out to be so: the more seldom it is asked for nothing.
        self._look_at = now + (LOOK if self._metrics.redis_up else 4 * LOOK)
        try:
            transient(lambda: self._client.hexists(self._left, "look"))
            self._metrics.redis_up = True
        except TransientError as error:
            self._metrics.redis_errors["look"] += 1
            if self._metrics.redis_up:
                log.warning("nothing is asked of it now, but: %s", error)
            self._metrics.redis_up = False

    def _calls(self, jobs: Sequence[Job]) -> tuple[list[Sequence[int]], list[tuple[list[str], bytes]]]:
        """Numbers of jobs, and for each group of them its keys and what it asks for, packed.

        In a cluster there is a group for each slot, and one shard may be away while the others answer.
        """
        lanes = {job.lane for job in jobs}
        places = {lane: self._place(*lane.partition) for lane in lanes}
        own = {lane: f"{lane.partition.topic}:{lane.partition.partition}:" for lane in lanes}
        ids = [
            job.id
            if 0 < len(job.id) <= LONGEST_ID and not job.id.startswith(own[job.lane])
            else self._id(job)
            for job in jobs
        ]
        coordinates = [f"{places[job.lane]}:{job.record.offset}" for job in jobs]
        if len(self._claims) == 1 and 0 < len(jobs) <= CHUNK:
            return [range(len(jobs))], [(self._claims[0], _pack([ids, coordinates]))]
        groups: list[Sequence[int]] = []
        calls = []
        for slot, numbers in self._by_slot(ids):
            for at in range(0, len(numbers), CHUNK):
                group = numbers[at : at + CHUNK]
                asked = [[ids[number] for number in group], [coordinates[number] for number in group]]
                groups.append(group)
                calls.append((self._claims[slot], _pack(asked)))
        return groups, calls

    def _by_slot(self, ids: Sequence[str]) -> Iterable[tuple[int, Sequence[int]]]:
        if len(self._claims) == 1:
            return [(0, range(len(ids)))]
        numbers: dict[int, list[int]] = {}
        for number, id in enumerate(ids):
            numbers.setdefault(crc32(id.encode()) % SLOTS, []).append(number)
        return numbers.items()

    def _judge(
        self, jobs: Sequence[Job], groups: Sequence[Sequence[int]], answers: Sequence[Any]
    ) -> list[str | None]:
        verdicts: list[str | None] = [None] * len(jobs)
        again: list[int] = []
        given_back: list[int] = []
        here: set[str] = set()  # the coordinates of these jobs, once a duplicate asks for them
        away = False
        for numbers, holders in zip(groups, answers, strict=True):
            if isinstance(holders, TransientError):
                self._go_without(holders, jobs, numbers)
                away = True
                continue
            for at, raw in zip(holders[::2], holders[1::2], strict=True):
                number, holder = numbers[at - 1], raw.decode()
                if jobs[number].lane.closed:
                    continue  # another has it by now, and what was left for that one stays
                coordinate = self._coordinate(jobs[number].record)
                if holder == coordinate + FREE:
                    given_back.append(number)
                elif holder != coordinate:
                    here = here or {self._coordinate(job.record) for job in jobs}
                    verdicts[number] = "same_window" if holder in here else "duplicate"
                    continue
                again.append(number)
        if again:
            try:
                self._look_up(jobs, again, verdicts)
                # Given back, and then their worker died before that was marked: they hold them again.
                held_again = [jobs[number] for number in given_back if verdicts[number] is None]
                for answer in self._change(held_again, FREE, ""):
                    if isinstance(answer, TransientError):
                        raise answer
            except TransientError as error:
                self._go_without(error, jobs, again)
                away = True
        if not away:
            self._metrics.redis_up = True
        return verdicts

    def _marked(self, answers: Sequence[Any]) -> bool:
        if isinstance(answers[0], TransientError):
            self._wait_or_log("mark", answers[0])
        else:
            self._metrics.redis_up = True
        return True

    def _look_up(self, jobs: Sequence[Job], again: Sequence[int], verdicts: list[str | None]) -> None:
        """Those that held their claims before: written, left by one that lives, or suspect?"""
        written, left = self._offsets()
        for number in again:
            job = jobs[number]
            field = self._field(job.record)
            if job.record.offset < int(written.get(field, -1)):
                verdicts[number] = "redelivered"
            else:
                job.suspect = True
                job.lane.survived = max(job.lane.survived, int(left.get(field, -1)))
        if taken := left.keys() & {self._field(jobs[number].record) for number in again}:
            # From now on they are in our hands, and it is us that they may kill.
            transient(lambda: self._client.hdel(self._left, *taken))

    def _change(self, jobs: Sequence[Job], old: str, new: str) -> list[Any]:
        """Another sign on the claims of these jobs, if they hold them; an answer or a TransientError each."""
        _, calls = self._calls(jobs)
        return self._wires.call(self._sign, [(keys, [packed, old, new]) for keys, packed in calls]).wait()

    def _offsets(self) -> list[dict[bytes, bytes]]:
        """What is written, and what was left in good order, by partition."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._written)
        pipeline.hgetall(self._left)
        return transient(pipeline.execute)

    def _place(self, topic: str, partition: int) -> str:
        return f"{self._generations.get(topic, topic)}:{partition}"

    def _id(self, job: Job) -> str:
        """An id that is too long, or a coordinate in the place of one, by a name that no other id has.

        A topic that was created anew has the same coordinates, and other records.
        """
        topic, partition, offset = job.record.topic, job.record.partition, job.record.offset
        id = job.id if job.id not in ("", f"{topic}:{partition}:{offset}") else self._coordinate(job.record)
        if len(id) <= LONGEST_ID:
            return id
        return "blake2b: " + blake2b(id.encode(), digest_size=16).hexdigest()

    def _field(self, record: Record) -> bytes:
        return self._place(record.topic, record.partition).encode()

    def _coordinate(self, record: Record) -> str:
        return f"{self._place(record.topic, record.partition)}:{record.offset}"

    def _go_without(self, error: TransientError, jobs: Sequence[Job], numbers: Iterable[int]) -> None:
        self._wait_or_log("claim", error)
        for number in numbers:
            jobs[number].unclaimed = True

    def _wait_or_log(self, operation: str, error: TransientError) -> None:
        self._metrics.redis_up = False
        self._metrics.redis_errors[operation] += 1
        if self._on_outage == "wait":
            raise error
        log.warning("claims are away, going on without them: %s", error)
