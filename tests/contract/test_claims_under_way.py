"""Answers of a real Redis that come late, or never; and how long a claim lives."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from streamer.errors import TransientError
from streamer.records import TopicPartition
from streamer.state.connection import connect
from streamer.state.redis import RedisDeduplicator
from tests.contract.jobs import claim, job, mark
from tests.contract.test_deduplicator import over, over_redis
from tests.servers import RedisServer
from tests.servers.redis_topologies import Topology

FIRST = TopicPartition("texts.in", 0)
GO_ON = None


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_what_nobody_waits_for_any_more_is_not_in_the_way(
    kind: str, start_redis_kind: Callable[[str], Topology]
) -> None:
    claims = over(start_redis_kind(kind))
    claims.check()  # every node has the scripts
    claims.claim([job(number, id=f"id{number}") for number in range(100)])
    claims.mark({FIRST: 50})
    assert (
        claim(claims, [job(900 + number, id=f"id{number}") for number in range(100)]) == ["duplicate"] * 100
    )
    assert claim(claims, [job(49, id="id49"), job(50, id="id50")]) == ["redelivered", GO_ON]


def test_answers_are_fetched_in_any_order(redis_url: str) -> None:
    claims = over_redis(redis_url)
    claims.check()
    first, marked, second = (
        claims.claim([job(0, id="a")]),
        claims.mark({FIRST: 1}),
        claims.claim([job(0, id="a"), job(1, id="a")]),
    )
    assert second.get(2.0) == ["redelivered", "same_window"], "it was marked before"
    assert marked.get(0.0) and first.get(0.0) == [GO_ON], "they are there already"


def test_a_frozen_redis_holds_nobody_up_and_its_answers_are_given_up_in_time(
    breakable_redis: RedisServer,
) -> None:
    claims = over_redis(breakable_redis.url)
    claim(claims, [job(0, id="a")])
    breakable_redis.process.suspend()
    started = time.monotonic()
    claimed, marked = claims.claim([job(1, id="b")]), claims.mark({FIRST: 1})
    assert claimed.get(0.0) is None and marked.get(0.0) is None
    assert time.monotonic() - started < 1.0
    with pytest.raises(TransientError, match="no answer within 2 s"):
        while claimed.get(0.1) is None:
            assert time.monotonic() - started < 10
    with pytest.raises(TransientError):
        marked.get(0.0)
    breakable_redis.process.resume()
    assert claim(claims, [job(1, id="b"), job(2, id="b")]) == [GO_ON, "same_window"], (
        "and not an older answer"
    )
    mark(claims, {FIRST: 2})


def test_a_redis_that_dies_takes_what_is_due_with_it(breakable_redis: RedisServer) -> None:
    claims = over_redis(breakable_redis.url)
    claim(claims, [job(0, id="a")])
    breakable_redis.process.suspend()
    answers = claims.claim([job(1, id="b")]), claims.mark({FIRST: 1})
    breakable_redis.kill()
    for answer in answers:
        with pytest.raises(TransientError, match="Redis"):
            answer.get(1.0)
    breakable_redis.restart()
    assert claim(claims, [job(1, id="b")]) == [GO_ON]


@pytest.mark.parametrize("kind", ["redis-6.2", "valkey", "cluster"])
def test_a_claim_lives_once_to_twice_as_long_as_it_is_to(
    kind: str, start_redis_kind: Callable[[str], Topology]
) -> None:
    world = start_redis_kind(kind)
    claims = RedisDeduplicator(
        connect(world.urls, **world.options), prefix="test:short:", ttl=1, generations={}
    )
    started = time.monotonic()
    claim(claims, [job(0, id="a"), job(1, id="b")])
    claims.give_back([job(1, id="b")])
    offset, turns = 2, 0
    while claim(claims, [job(offset, id="a")]) == ["duplicate"]:
        # The ids of all slots: each of them has its own pair of hashes.
        others = [job(offset, id=f"{offset}-{number}") for number in range(200)]
        assert claim(claims, others) == [GO_ON] * 200
        offset, turns = offset + 1, turns + 1
        assert time.monotonic() - started < 10, "it lives for ever"
    assert turns > 1 and time.monotonic() - started > 1
    assert claim(claims, [job(0, id="a")]) == ["duplicate"], "another has it by now"
