"""Claims in Redis: one round trip a window.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal
from zlib import crc32

import redis
from redis.commands.core import Script

from streamer.errors import StartupError, TransientError
from streamer.metrics import Metrics
from streamer.records import Job, Record, TopicPartition
from streamer.state.connection import FAILURES, Client, members, refusal, transient
from streamer.state.slots import SLOTS, Call, call, hash_tag, spread

log = logging.getLogger(__name__)

CHUNK = 4000  # ids a call: Lua unpacks no more than about 8,000 values
LOOK = 5.0  # seconds between two looks at a Redis that nobody asks for anything
LONGEST_KEY = 40  # bytes of an id kept as they are; beyond, 16 bytes of hash

# On a claim that was given back. No coordinate ends so.
FREE = b"!"
# KEYS: claims. ARGV: seconds to live, then for each claim its coordinate. Returns what each key held before:
# nothing, or a coordinate; a key that comes twice in one call held what the first brought.
CLAIM = """
local held, mine = redis.call('MGET', unpack(KEYS)), {}
for i, key in ipairs(KEYS) do
  local coordinate = ARGV[i + 1]
  if mine[key] then
    held[i] = mine[key]
  elseif not held[i] or (held[i]:sub(-1) == '!' and held[i] ~= coordinate .. '!') then
    held[i], mine[key] = false, coordinate
    redis.call('SET', key, coordinate, 'EX', ARGV[1])
  end
end
return held
"""
# KEYS: the hash of written offsets. ARGV: seconds to live, then pairs of field and offset. A field never goes
# back: a worker that was cut off and finishes late may not undo what its successor has written.
MARK = """
for i = 2, #ARGV, 2 do
  if tonumber(ARGV[i + 1]) > tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or -1) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
# KEYS: claims. ARGV: what it adds to them, then for each its coordinate.
GIVE_BACK = """
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i + 1] then redis.call('APPEND', key, ARGV[1]) end
end
"""
# KEYS: one claim. ARGV: it as it was given back, and as it is when it is held.
TAKE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
"""


class RedisDeduplicator:
    """Claims, kept for `ttl` seconds under `prefix`.

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
        self._in_slots = isinstance(client, redis.RedisCluster)
        self._tags = spread(prefix)
        tag = hash_tag(prefix)
        self._written, self._starts, self._left = (f"{tag}:{name}" for name in ("written", "starts", "left"))
        self._ttl = ttl
        self._generations = generations
        self._on_outage = on_outage
        self._look_at = 0.0
        self._claim = client.register_script(CLAIM)
        self._mark = client.register_script(MARK)
        self._give_back = client.register_script(GIVE_BACK)
        self._take_back = client.register_script(TAKE_BACK)

    def check(self) -> None:
        """Raises StartupError when Redis is away, refuses what it will be asked, or would drop claims."""
        try:
            for member in members(self._client):
                self._check_eviction(member.name, member.client.info("memory"))
            self._metrics.redis_up = True
            # What a window asks for, so that a user without the rights is told now, not by a line that waits.
            key, coordinate = self._key("streamer check"), b"streamer check"
            self._claim(keys=[key], args=[1, coordinate])
            self._give_back(keys=[key], args=[FREE, coordinate])
            self._take_back(keys=[key], args=[coordinate + FREE, coordinate])
            self._mark(keys=[self._written], args=[self._ttl])
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

    def claim(self, jobs: Sequence[Job]) -> list[str | None]:
        verdicts: list[str | None] = [None] * len(jobs)
        again: list[int] = []
        given_back: set[int] = set()
        here: set[bytes] = set()  # the coordinates of these jobs, once a duplicate asks for them
        away = False
        for numbers, holders in self._call(self._claim, jobs, self._ttl):
            if isinstance(holders, TransientError):
                self._go_without(holders, jobs, numbers)
                away = True
                continue
            for number, holder in zip(numbers, holders, strict=True):
                if holder is None:
                    continue
                coordinate = self._coordinate(jobs[number].record)
                if holder == coordinate + FREE:
                    given_back.add(number)
                elif holder != coordinate:
                    here = here or {self._coordinate(job.record) for job in jobs}
                    verdicts[number] = "same_window" if holder in here else "duplicate"
                    continue
                again.append(number)
        if again:
            try:
                self._look_up(jobs, again, verdicts)
                for number in given_back:
                    if verdicts[number] is None:
                        self._hold_again(jobs[number])
            except TransientError as error:
                self._go_without(error, jobs, again)
                away = True
        if not away:
            self._metrics.redis_up = True
        return verdicts

    def mark(self, offsets: Mapping[TopicPartition, int]) -> None:
        args: list[str | int] = [self._ttl]
        for (topic, partition), offset in offsets.items():
            args += [f"{self._generation(topic)}:{partition}", offset]
        try:
            transient(lambda: self._mark(keys=[self._written], args=args))
            self._metrics.redis_up = True
        except TransientError as error:
            self._wait_or_log("mark", error)

    def give_back(self, jobs: Iterable[Job]) -> None:
        # What could not be decoded is claimed by its coordinate, which nobody else asks for.
        claimed = [job for job in jobs if job.id]
        for _, answer in self._call(self._give_back, claimed, FREE):
            if isinstance(answer, TransientError):
                self._wait_or_log("give_back", answer)

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        if offsets:
            left: Any = {f"{self._generation(topic)}:{number}": at for (topic, number), at in offsets.items()}
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(self._left, mapping=left)
            pipeline.expire(self._left, self._ttl)
            transient(pipeline.execute)

    def begin(self, job: Job) -> int:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hincrby(self._starts, self._coordinate(job.record), 1)
        pipeline.expire(self._starts, self._ttl)
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

    def _call(
        self, script: Script, jobs: Sequence[Job], first: int | bytes
    ) -> Iterator[tuple[Sequence[int], list[Any] | TransientError]]:
        """Call the script with the jobs' keys and coordinates: numbers of jobs, and the answer to them.

        In a cluster there is a call for each slot, and one shard may be away while the others answer.
        """
        keys = [self._key(job.id or self._coordinate(job.record).decode()) for job in jobs]
        groups: Iterable[Sequence[int]] = [range(len(keys))]
        if self._in_slots:
            by_tag: dict[bytes, list[int]] = {}
            for number, key in enumerate(keys):
                by_tag.setdefault(key.partition(b"}")[0], []).append(number)
            groups = by_tag.values()
        chunks = [group[at : at + CHUNK] for group in groups for at in range(0, len(group), CHUNK)]
        calls: list[Call] = [
            (
                [keys[number] for number in chunk],
                [first, *(self._coordinate(jobs[number].record) for number in chunk)],
            )
            for chunk in chunks
        ]
        yield from zip(chunks, call(self._client, script, calls), strict=True)

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

    def _hold_again(self, job: Job) -> None:
        """It was given back, and then its worker died before that was marked: it goes on, with its claim."""
        key, coordinate = self._key(job.id), self._coordinate(job.record)
        transient(lambda: self._take_back(keys=[key], args=[coordinate + FREE, coordinate]))

    def _offsets(self) -> list[dict[bytes, bytes]]:
        """What is written, and what was left in good order, by partition."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._written)
        pipeline.hgetall(self._left)
        return transient(pipeline.execute)

    def _field(self, record: Record) -> bytes:
        return b"%b:%d" % (self._generation(record.topic).encode(), record.partition)

    def _key(self, id: str) -> bytes:
        raw = id.encode()
        slot = crc32(raw) % SLOTS
        if len(raw) > LONGEST_KEY or raw.startswith(b"#"):
            raw = b"#" + blake2b(raw, digest_size=16).digest()
        return self._tags[slot] + raw

    def _coordinate(self, record: Record) -> bytes:
        return f"{self._generation(record.topic)}:{record.partition}:{record.offset}".encode()

    def _generation(self, topic: str) -> str:
        return self._generations.get(topic, topic)

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
