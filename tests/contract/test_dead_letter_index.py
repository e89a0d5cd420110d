"""The index of dead letters, over memory and over every kind of real Redis."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import redis

from streamer.errors import TransientError
from streamer.protocols import DeadLetterQueue
from streamer.state.connection import connect
from streamer.state.entries import Audit, Entry
from streamer.state.index import RedisDeadLetters
from streamer.state.memory import MemoryDeadLetters
from tests.contract.conftest import REDISES
from tests.contract.jobs import dead, job, scored
from tests.servers.process import free_port
from tests.servers.redis_topologies import Topology

Index = MemoryDeadLetters | RedisDeadLetters
LIMIT = 1200


@pytest.fixture(params=["memory", *REDISES])
def index(request: pytest.FixtureRequest, start_redis_kind: Callable[[str], Topology]) -> Index:
    if request.param == "memory":
        return MemoryDeadLetters(LIMIT)
    topology = start_redis_kind(request.param)
    return RedisDeadLetters(connect(topology.urls, **topology.options), prefix="test:dead:", limit=LIMIT)


def entry(offset: int, reason: str = "refused", failed_at: int | None = None) -> Entry:
    return Entry(
        topic="texts.in",
        partition=0,
        offset=offset,
        timestamp=5,
        reason=reason,
        failed_at=offset if failed_at is None else failed_at,
    )


def audit(name: str, at: int, count: int = 1) -> Audit:
    return Audit(name=name, action="replay", at=at, by="ann@host", filter="all", count=count)


def test_it_counts_by_reason(index: Index) -> None:
    queue: DeadLetterQueue = index
    assert index.counts() == {} and len(index) == 0 and list(index.entries()) == []
    queue.add([dead(job(0), "refused"), dead(job(1), "invalid_json"), scored(job(2))])
    queue.add([dead(job(3), "refused")])
    queue.add([])
    assert index.counts() == {"refused": 2, "invalid_json": 1}
    assert len(index) == 3


def test_an_entry_says_what_the_headers_of_the_letter_say(index: Index) -> None:
    index.add([dead(job(7, 1, id="an id"))])
    (found,) = index.entries()
    assert found == Entry(
        topic="texts.in",
        partition=1,
        offset=7,
        timestamp=1_700_000_000_007,
        reason="refused",
        error="RecordError",
        message="why",
        stage="infer",
        attempts=2,
        model="m",
        failed_at=7,
        id="an id",
    )
    assert (found.source, found.status) == ("texts.in:1:7", "dead")


def test_a_letter_that_is_written_again_counts_once(index: Index) -> None:
    """A worker that crashed before its commit; and the second time it may die of something else."""
    index.put([entry(0), entry(1)])
    index.put([entry(0, "out_of_memory", 9)])
    assert index.counts() == {"refused": 1, "out_of_memory": 1}
    assert [(one.offset, one.reason) for one in index.entries()] == [(0, "out_of_memory"), (1, "refused")]


def test_the_newest_come_first_whatever_came_when(index: Index) -> None:
    index.put([entry(3), entry(1), entry(2)])
    index.put([entry(9, failed_at=2), entry(4)])
    assert [one.offset for one in index.entries()] == [4, 3, 9, 2, 1]


def test_replayed_and_dead_again(index: Index) -> None:
    index.put([entry(0), entry(1)])
    index.mark_replayed([entry(0).key, entry(77).key])
    index.link({entry(1).key: ("texts.in:0:0", 2)})
    newer, older = index.entries()
    assert (older.status, older.replays, older.origin) == ("replayed", 0, "")
    assert (newer.status, newer.replays, newer.origin) == ("dead", 2, "texts.in:0:0")
    index.put([older, entry(77)])
    assert [one.status for one in index.entries()] == ["dead"] * 3, (
        "a letter that comes again is not replayed"
    )


def test_what_is_forgotten_does_not_count(index: Index) -> None:
    index.put([entry(number, reason) for number, reason in enumerate(["a", "b", "a"])])
    index.mark_replayed([entry(0).key])
    index.forget([entry(0).key, entry(1).key, "never there"])
    assert index.counts() == {"a": 1} and len(index) == 1
    index.put([entry(0)])
    assert not any(one.replayed for one in index.entries())
    index.clear()
    assert (len(index), index.counts(), list(index.entries())) == (0, {}, [])


def test_beyond_the_limit_the_oldest_leave(index: Index) -> None:
    index.put(entry(number, f"reason-{number % 2}") for number in range(LIMIT + 301))
    assert len(index) == LIMIT == sum(index.counts().values())
    offsets = [one.offset for one in index.entries()]
    assert offsets == list(range(LIMIT + 300, 300, -1))
    index.put([entry(5)])
    assert 5 not in [one.offset for one in index.entries()], "it is older than all that is there"


def test_of_what_replays_published_the_newest_origins_are_kept(index: Index) -> None:
    """Most of it never dies again, and then no letter takes its origin along."""
    for number in range(LIMIT + 5):
        replayed = msgspec.structs.replace(entry(number), timestamp=number)
        index.link({replayed.key: ("texts.in:0:7", number)})
    index.put(msgspec.structs.replace(entry(at), timestamp=at) for at in (4, LIMIT + 4))
    assert [(one.origin, one.replays) for one in index.entries()] == [("texts.in:0:7", LIMIT + 4), ("", 0)]


def test_the_audit_outlives_the_letters(index: Index) -> None:
    index.record(audit("first", 1))
    index.record(audit("second", 2))
    index.record(audit("first", 1, count=7))
    index.clear()
    assert index.audits() == [audit("second", 2), audit("first", 1, count=7)]


@pytest.mark.parametrize("text", ["\u5f88\u597d" * 300, "a\n\t b", "\ud800 lone", "\0:{}*"])
def test_any_id_and_any_message(index: Index, text: str) -> None:
    record = dead(job(0, id=text))
    index.add([record])
    (found,) = index.entries()
    assert found.id and len(found.id) <= 200 and "\n" not in found.id


def test_in_redis_all_keys_share_a_slot_and_none_holds_a_value(redis_url: str) -> None:
    index = RedisDeadLetters(connect([redis_url]), prefix="test:dead:")
    index.add([dead(job(0))])
    index.mark_replayed([next(index.entries()).key])
    index.link({"a": ("b", 1)})
    index.record(audit("one", 1))
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys("*")
        assert isinstance(keys, list) and len(keys) == 7
        assert all(key.startswith(b"{test:dead}:") for key in keys)
        assert all(b"value 0" not in client.dump(key) for key in keys)


def test_an_index_that_is_away_says_so() -> None:
    index = RedisDeadLetters(connect([f"redis://127.0.0.1:{free_port()}/0"]), prefix="test:dead:")
    for call in (
        lambda: index.add([dead(job(0))]),
        lambda: len(index),
        index.counts,
        index.clear,
        index.audits,
        lambda: list(index.entries()),
        lambda: index.forget(["a"]),
        lambda: index.mark_replayed(["a"]),
        lambda: index.link({"a": ("b", 1)}),
        lambda: index.record(audit("one", 1)),
    ):
        with pytest.raises(TransientError, match="Redis"):
            call()


def test_runs_that_ended_at_the_limit_are_counted_by_limits_until_one_goes_well(index: Index) -> None:
    queue: DeadLetterQueue = index
    assert queue.stops("100/0.5") == 0
    queue.stop("100/0.5")
    queue.stop("100/0.5")
    index.clear()  # a rebuild is about letters
    assert (queue.stops("100/0.5"), queue.stops("200/0.5")) == (2, 0)
    queue.resume()
    assert queue.stops("100/0.5") == 0
