"""The index of dead letters in Redis: for looking things up, never the truth.

    letters   key -> entry             time      key by the time of failure
    counts    reason -> letters        replayed  keys that a replay has published again
    origins   key of a record that a replay published -> what it was first, and which replay of that it is
    linked    those keys by the time of the replay
    audit     name -> who replayed or purged what
    stops     limits of dead letters -> runs in a row that have ended at them

The rest can be read from the dead-letter topic again (`streamer dlq rebuild`), save who purged: a purge cuts
the topic. The index is bounded: beyond `limit` letters, or origins, the oldest leave it, and stay in the
topic. The keys share a hash tag, and so a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from streamer.records import Job
from streamer.state.connection import Client, transient
from streamer.state.entries import Audit, Entry, entries_of
from streamer.state.slots import hash_tag

T = TypeVar("T")

LIMIT = 100_000
PAGE = 500  # letters a call
KEPT_AUDITS = 500
NAMES = ("letters", "time", "counts", "replayed", "origins", "linked", "audit")

# KEYS: letters, time, counts, replayed.
_DROP = """
local function drop(key)
  local held = redis.call('HGET', KEYS[1], key)
  if held then
    local reason = cjson.decode(held).reason
    if redis.call('HINCRBY', KEYS[3], reason, -1) < 1 then redis.call('HDEL', KEYS[3], reason) end
    redis.call('HDEL', KEYS[1], key)
    redis.call('ZREM', KEYS[2], key)
  end
  redis.call('SREM', KEYS[4], key)
end
"""
# ARGV: the limit, then for each letter its key, time of failure, reason and entry. A letter that is there
# already died again, or is written again after a crash: it counts once, and it is not replayed any more.
PUT = f"""{_DROP}
for i = 2, #ARGV, 4 do
  drop(ARGV[i])
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 3])
  redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i])
  redis.call('HINCRBY', KEYS[3], ARGV[i + 2], 1)
end
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1])
if excess > 0 then
  for _, key in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do drop(key) end
end
"""
# KEYS: origins, linked. ARGV: the limit, then for each record its key, the time of its replay and its origin.
LINK = """
for i = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i])
end
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1])
if excess > 0 then
  for _, key in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do
    redis.call('HDEL', KEYS[1], key)
    redis.call('ZREM', KEYS[2], key)
  end
end
"""
# ARGV: keys of letters.
FORGET = f"{_DROP} for _, key in ipairs(ARGV) do drop(key) end"
# ARGV: keys of letters. Those that the index does not hold would be kept for ever.
REPLAYED = """
for _, key in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], key) == 1 then redis.call('SADD', KEYS[4], key) end
end
"""

_decode_entry = msgspec.json.Decoder(Entry).decode
_decode_origin = msgspec.json.Decoder(tuple[str, int]).decode
_decode_audit = msgspec.json.Decoder(Audit).decode


class RedisDeadLetters:
    """Written after the topic. Every method may raise TransientError."""

    def __init__(self, client: Client, *, prefix: str, limit: int = LIMIT) -> None:
        self._client = client
        self.limit = limit
        tag = hash_tag(prefix)
        self._all = [f"{tag}:{name}" for name in NAMES]
        self._letters, self._time, self._counts, self._replayed, self._origins, self._linked, self._audit = (
            self._all
        )
        self._stops = f"{tag}:stops"
        self._put = client.register_script(PUT)
        self._link = client.register_script(LINK)
        self._forget = client.register_script(FORGET)
        self._mark = client.register_script(REPLAYED)

    def __len__(self) -> int:
        return int(transient(lambda: self._client.zcard(self._time)))

    def add(self, jobs: Sequence[Job]) -> None:
        self.put(entries_of(jobs))

    def put(self, entries: Iterable[Entry]) -> None:
        """Add letters; of what replays did to them it keeps nothing: see `link` and `mark_replayed`."""
        for page in _pages(entries):
            args: list[Any] = [self.limit]
            for entry in page:
                bare = msgspec.structs.replace(entry, replayed=False, replays=0, origin="")
                args += [entry.key, entry.failed_at, entry.reason, msgspec.json.encode(bare)]
            self._call(self._put, args)

    def link(self, origins: Mapping[str, tuple[str, int]]) -> None:
        """Key of a record that a replay published -> the coordinate that it had first, and its number."""
        for page in _pages(origins.items()):
            args: list[Any] = [self.limit]
            for key, origin in page:
                args += [key, _time_of(key), msgspec.json.encode(origin)]
            transient(lambda args=args: self._link(keys=[self._origins, self._linked], args=args))  # type: ignore[misc]

    def mark_replayed(self, keys: Iterable[str]) -> None:
        for page in _pages(keys):
            self._call(self._mark, page)

    def forget(self, keys: Iterable[str]) -> None:
        """They are no longer in the topic."""
        for page in _pages(keys):
            self._call(self._forget, page)

    def clear(self) -> None:
        """Forget all letters, and what replays did to them."""
        transient(lambda: self._client.delete(*(key for key in self._all if key != self._audit)))

    def entries(self) -> Iterator[Entry]:
        """The newest first."""
        start = 0
        while keys := transient(
            lambda start=start: self._client.zrevrange(self._time, start, start + PAGE - 1)  # type: ignore[misc]
        ):
            yield from self._read(keys)  # type: ignore[arg-type]
            start += PAGE

    def counts(self) -> dict[str, int]:
        """Letters by reason."""
        counts: Any = transient(lambda: self._client.hgetall(self._counts))
        return {str(reason, "utf-8"): int(count) for reason, count in counts.items()}

    def record(self, audit: Audit) -> None:
        """Keep who did what. One of the same name is replaced: a rebuild may meet it again."""
        transient(lambda: self._client.hset(self._audit, audit.name, msgspec.json.encode(audit)))
        if old := self.audits()[KEPT_AUDITS:]:
            transient(lambda: self._client.hdel(self._audit, *(one.name for one in old)))

    def audits(self) -> list[Audit]:
        """The newest first."""
        held: Any = transient(lambda: self._client.hvals(self._audit))
        return sorted(map(_decode_audit, held), key=lambda audit: (audit.at, audit.name), reverse=True)

    def stops(self, limits: str) -> int:
        return int(transient(lambda: self._client.hget(self._stops, limits)) or 0)

    def stop(self, limits: str) -> None:
        transient(lambda: self._client.hincrby(self._stops, limits, 1))

    def resume(self) -> None:
        transient(lambda: self._client.delete(self._stops))

    def _read(self, keys: Sequence[bytes]) -> Iterator[Entry]:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hmget(self._letters, keys)
        pipeline.hmget(self._origins, keys)
        pipeline.smismember(self._replayed, keys)  # type: ignore[arg-type]
        for entry, origin, replayed in zip(*transient(pipeline.execute), strict=True):
            if entry is None:
                continue  # it left between the two calls
            first, number = _decode_origin(origin) if origin else ("", 0)
            yield msgspec.structs.replace(
                _decode_entry(entry), replayed=bool(replayed), origin=first, replays=number
            )

    def _call(self, script: Any, args: Sequence[Any]) -> None:
        keys = [self._letters, self._time, self._counts, self._replayed]
        transient(lambda: script(keys=keys, args=args))


def _time_of(key: str) -> int:
    """See `Entry.key`. It may come from a note that nobody of us has written."""
    time = key.rpartition("@")[2]
    return int(time) if time.isdecimal() else 0


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while page := list(islice(left, PAGE)):
        yield page
