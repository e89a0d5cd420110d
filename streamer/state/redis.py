"""Claims in Redis: one round trip a window.

The claim of an id is the coordinate of the record that came first with it. A plain `SET NX` loses records:
after a lost reply, or a crash, the retry looks like a duplicate of itself. Here whoever asks with the same
coordinate goes on, as often as it takes, until its result is published and the claim says so.

    no claim                    claim it, go on
    my coordinate               go on (a redelivery, or the answer to the first call was lost)
    my coordinate, written      skip: redelivered
    another coordinate          skip: duplicate

What is written is one offset a partition, not a mark a claim: results leave in order, so all below it is
written too. That makes the mark as cheap as the commit that it precedes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Literal, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.errors import StartupError, TransientError
from streamer.metrics import Metrics
from streamer.records import Job, Record, TopicPartition

log = logging.getLogger(__name__)
T = TypeVar("T")

OPERATION_TIMEOUT = 2.0  # seconds; retrying is the engine's business, which polls Kafka meanwhile
CHUNK = 4000  # ids a call: Lua unpacks no more than about 8,000 values
LONGEST_KEY = 40  # characters of an id kept as they are; beyond, 16 bytes of hash

# KEYS: claims. ARGV: seconds to live, then for each claim its coordinate. Returns what each key held before:
# nothing, or a coordinate; a key that comes twice in one call held what the first brought.
CLAIM = """
local held, mine = redis.call('MGET', unpack(KEYS)), {}
for i, key in ipairs(KEYS) do
  if not held[i] then
    held[i] = mine[key] or false
    if not held[i] then
      mine[key] = ARGV[i + 1]
      redis.call('SET', key, mine[key], 'EX', ARGV[1])
    end
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
# KEYS: claims. ARGV: for each its coordinate.
GIVE_BACK = """
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i] then redis.call('DEL', key) end
end
"""


def connect(url: str) -> redis.Redis:
    """A client with short time-outs and no retries of its own. Does not connect yet."""
    return redis.Redis.from_url(
        url,
        socket_timeout=OPERATION_TIMEOUT,
        socket_connect_timeout=OPERATION_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


class RedisDeduplicator:
    """Claims, kept for `ttl` seconds under `prefix`.

    `generations` maps a topic to what tells it from one of the same name that was deleted: without it, old
    claims would swallow the records of a topic that was created anew.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str,
        ttl: int,
        generations: Mapping[str, str],
        on_outage: Literal["wait", "process"] = "wait",
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._client = client
        self._prefix = f"{prefix}id:"
        self._written = f"{prefix}written"
        self._starts = f"{prefix}starts"
        self._left = f"{prefix}left"
        self._ttl = ttl
        self._generations = generations
        self._on_outage = on_outage
        self._claim = client.register_script(CLAIM)
        self._mark = client.register_script(MARK)
        self._give_back = client.register_script(GIVE_BACK)

    def check(self) -> None:
        """Raises StartupError when Redis is not there, or would drop claims without a word."""
        try:
            memory = self._client.info("memory")
            self._metrics.redis_up = True
        except redis.RedisError as error:
            raise StartupError(f"Redis: {error}; set redis.url, or deduplication.enabled: false") from error
        policy = memory.get("maxmemory_policy", "noeviction")
        if int(memory.get("maxmemory", 0)) and policy != "noeviction":
            raise StartupError(
                f"Redis evicts keys (maxmemory-policy {policy}), and a claim that is dropped lets duplicates "
                "through: set it to noeviction, or deduplication.enabled: false"
            )

    def claim(self, jobs: Sequence[Job]) -> list[str | None]:
        try:
            verdicts = self._claim_all(jobs)
            self._metrics.redis_up = True
            return verdicts
        except TransientError as error:
            self._wait_or_log("claim", error)
            for job in jobs:
                job.unclaimed = True
            return [None] * len(jobs)

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
        # A record that could not be decoded never had an id, and so no claim.
        claimed = [job for job in jobs if job.id]
        try:
            for keys, coordinates in self._chunks(claimed):
                transient(partial(self._give_back, keys=keys, args=coordinates))
        except TransientError as error:
            self._wait_or_log("give_back", error)

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

    def _claim_all(self, jobs: Sequence[Job]) -> list[str | None]:
        verdicts: list[str | None] = []
        again: list[int] = []
        for keys, coordinates in self._chunks(jobs):
            held = transient(partial(self._claim, keys=keys, args=[self._ttl, *coordinates]))
            for holder, coordinate in zip(held, coordinates, strict=True):
                if holder == coordinate:
                    again.append(len(verdicts))
                verdicts.append(None if holder is None or holder == coordinate else "duplicate")
        if again:
            written, left = self._offsets()
            for index in again:
                job = jobs[index]
                field = self._field(job.record)
                if job.record.offset < int(written.get(field, -1)):
                    verdicts[index] = "redelivered"
                else:
                    job.suspect = True
                    job.lane.survived = max(job.lane.survived, int(left.get(field, -1)))
            if taken := left.keys() & {self._field(jobs[index].record) for index in again}:
                # From now on they are in our hands, and it is us that they may kill.
                transient(lambda: self._client.hdel(self._left, *taken))
        return verdicts

    def _offsets(self) -> list[dict[bytes, bytes]]:
        """What is written, and what was left in good order, by partition."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._written)
        pipeline.hgetall(self._left)
        return transient(pipeline.execute)

    def _field(self, record: Record) -> bytes:
        return b"%b:%d" % (self._generation(record.topic).encode(), record.partition)

    def _chunks(self, jobs: Sequence[Job]) -> Iterator[tuple[list[str], list[bytes]]]:
        for start in range(0, len(jobs), CHUNK):
            chunk = jobs[start : start + CHUNK]
            yield [self._key(job.id) for job in chunk], [self._coordinate(job.record) for job in chunk]

    def _key(self, id: str) -> str:
        if len(id) > LONGEST_KEY:
            id = "#" + blake2b(id.encode(), digest_size=16).hexdigest()
        return self._prefix + id

    def _coordinate(self, record: Record) -> bytes:
        return f"{self._generation(record.topic)}:{record.partition}:{record.offset}".encode()

    def _generation(self, topic: str) -> str:
        return self._generations.get(topic, topic)

    def _wait_or_log(self, operation: str, error: TransientError) -> None:
        self._metrics.redis_up = False
        self._metrics.redis_errors[operation] += 1
        if self._on_outage == "wait":
            raise error
        log.warning("claims are away, going on without them: %s", error)


def transient(call: Callable[[], T]) -> T:
    """Whatever Redis refuses or fails to answer may pass: the caller waits, and nothing is committed."""
    try:
        return call()
    except (redis.RedisError, OSError) as error:
        raise TransientError(f"Redis: {error or type(error).__name__}") from error
