"""What the engine relies on in claims, over memory and over every kind of real Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import redis

from streamer.errors import StartupError, TransientError
from streamer.ledger import Lane
from streamer.metrics import Metrics
from streamer.protocols import Deduplicator
from streamer.records import TopicPartition
from streamer.state.connection import Client, connect
from streamer.state.memory import MemoryDeduplicator, NoDeduplication
from streamer.state.redis import RedisDeduplicator
from tests.contract.conftest import REDISES
from tests.contract.jobs import claim, dead, job, mark, undecodable
from tests.servers import RedisServer
from tests.servers.process import free_port
from tests.servers.redis_topologies import Topology

FIRST, SECOND = TopicPartition("texts.in", 0), TopicPartition("texts.in", 1)
GO_ON = None


def over_redis(url: str, **options: str | Metrics) -> RedisDeduplicator:
    return deduplicator(connect([url]), **options)


def over(topology: Topology, **options: str | Metrics) -> RedisDeduplicator:
    return deduplicator(connect(topology.urls, **topology.options), **options)


def deduplicator(client: Client, **options: str | Metrics) -> RedisDeduplicator:
    return RedisDeduplicator(
        client,
        prefix="test:claim:",
        ttl=60,
        generations={"texts.in": "generation-1"},
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(params=["memory", *REDISES])
def claims(request: pytest.FixtureRequest, start_redis_kind: Callable[[str], Topology]) -> Deduplicator:
    if request.param == "memory":
        return MemoryDeduplicator()
    return over(start_redis_kind(request.param))


# -- the four rows of the table ---------------------------------------------------------------------------


def test_no_claim_go_on(claims: Deduplicator) -> None:
    assert claim(claims, [job(0, id="a"), job(1, id="b")]) == [GO_ON, GO_ON]


def test_my_coordinate_go_on_as_often_as_it_takes(claims: Deduplicator) -> None:
    """After a crash, or when the reply to the first call was lost."""
    for _ in range(3):
        assert claim(claims, [job(0, id="a")]) == [GO_ON]


def test_my_coordinate_and_written_skip(claims: Deduplicator) -> None:
    jobs = [job(4, id="a"), job(5, id="b"), job(6, id="c")]
    claim(claims, jobs)
    mark(claims, {FIRST: 6})
    assert claim(claims, jobs) == ["redelivered", "redelivered", GO_ON]


def test_another_coordinate_skip(claims: Deduplicator) -> None:
    claim(claims, [job(4, 0, id="a")])
    assert claim(claims, [job(9, 0, id="a"), job(4, 1, id="a")]) == ["duplicate", "duplicate"]
    mark(claims, {FIRST: 5})
    assert claim(claims, [job(9, 0, id="a")]) == ["duplicate"], "and so it stays"


# -- in one call ------------------------------------------------------------------------------------------


def test_of_one_id_in_a_window_the_first_goes_on(claims: Deduplicator) -> None:
    window = [job(0, id="a"), job(1, id="b"), job(2, id="a"), job(0, 1, id="a")]
    assert claim(claims, window) == [GO_ON, GO_ON, "same_window", "same_window"]
    assert claim(claims, window) == [GO_ON, GO_ON, "same_window", "same_window"], (
        "and the same one the next time"
    )


def test_no_jobs_no_verdicts(claims: Deduplicator) -> None:
    assert claim(claims, []) == []
    mark(claims, {})
    claims.give_back([])


def test_10_000_ids_in_one_call(claims: Deduplicator) -> None:
    window = [job(number, id=f"id{number % 9_999}") for number in range(10_000)]
    assert claim(claims, window) == [GO_ON] * 9_999 + ["same_window"]
    claims.give_back(window)
    assert claim(claims, [job(99_999, id="id5000")]) == [GO_ON]


@pytest.mark.parametrize(
    "id",
    [
        "x" * 10_000,
        "\u5f88\u597d" * 500,
        "a b\n\0\u00e9:*{}?",
        "#",
        "id:\U0001f600",
        "written",
        "}{",
        "#" * 17,
    ],
)
def test_any_id_is_an_id(claims: Deduplicator, id: str) -> None:
    assert claim(claims, [job(0, id=id), job(1, id=id + "!"), job(2, id=id)]) == [GO_ON, GO_ON, "same_window"]


# -- marks and what is given back -------------------------------------------------------------------------


def test_marks_are_of_one_partition_and_never_go_back(claims: Deduplicator) -> None:
    claim(claims, [job(5, 0, id="a"), job(5, 1, id="b")])
    mark(claims, {FIRST: 9})
    mark(claims, {FIRST: 3})
    assert claim(claims, [job(5, 0, id="a"), job(5, 1, id="b")]) == ["redelivered", GO_ON]
    mark(claims, {FIRST: 10, SECOND: 6})
    assert claim(claims, [job(5, 1, id="b")]) == ["redelivered"]


def test_a_new_id_below_the_mark_goes_on(claims: Deduplicator) -> None:
    """It was never claimed, so it was never written: a log that was truncated may bring it."""
    mark(claims, {FIRST: 100})
    assert claim(claims, [job(5, id="a")]) == [GO_ON]


def test_what_is_given_back_may_be_claimed_again(claims: Deduplicator) -> None:
    claim(claims, [job(0, id="a"), job(1, id="b")])
    claims.give_back([job(0, id="a")])
    assert claim(claims, [job(7, id="a"), job(7, id="b")]) == [GO_ON, "duplicate"]


def test_only_the_holder_gives_back(claims: Deduplicator) -> None:
    claim(claims, [job(0, id="a")])
    claims.give_back([job(1, id="a"), job(0, id="never claimed"), job(2, id="")])
    assert claim(claims, [job(5, id="a")]) == ["duplicate"]


def test_a_dead_record_does_not_die_again_and_does_not_keep_its_id(claims: Deduplicator) -> None:
    claim(claims, [job(0, id="a")])
    claims.give_back([job(0, id="a")])
    mark(claims, {FIRST: 1})
    assert claim(claims, [job(0, id="a")]) == ["redelivered"], "its worker died before the commit"
    assert claim(claims, [job(3, id="a"), job(4, id="a")]) == [GO_ON, "same_window"], "its correction"
    assert claim(claims, [job(0, id="a")]) == ["duplicate"]


def test_what_was_given_back_and_not_marked_is_claimed_again(claims: Deduplicator) -> None:
    claim(claims, [job(0, id="a")])
    claims.give_back([job(0, id="a")])
    assert claim(claims, [job(0, id="a")]) == [GO_ON]
    assert claim(claims, [job(3, id="a")]) == ["duplicate"], "the first one has its claim again"
    claims.give_back([job(0, id="a")])
    assert claim(claims, [job(3, id="a")]) == [GO_ON]


def test_what_has_no_id_is_claimed_by_its_coordinate_and_does_not_die_twice(claims: Deduplicator) -> None:
    window = [undecodable(0), undecodable(1), undecodable(0, 1)]
    assert claim(claims, window) == [GO_ON] * 3
    assert claim(claims, window) == [GO_ON] * 3, "its worker died before it was marked"
    claims.give_back(window)
    mark(claims, {FIRST: 1})
    assert claim(claims, window) == ["redelivered", GO_ON, GO_ON]


def test_without_deduplication_everything_goes_on() -> None:
    nothing = NoDeduplication()
    mark(nothing, {FIRST: 5})
    nothing.give_back([job(0)])
    assert claim(nothing, [job(0, id="a"), job(1, id="a")]) == [GO_ON, GO_ON]


# -- Redis alone ------------------------------------------------------------------------------------------


def test_claims_are_shared_between_workers_and_expire(redis_url: str) -> None:
    one, other = over_redis(redis_url), over_redis(redis_url)
    claim(one, [job(0, id="a")])
    mark(one, {FIRST: 1})
    assert claim(other, [job(3, id="a")]) == ["duplicate"]
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys("*")
        assert isinstance(keys, list) and len(keys) == 2
        assert all(0 < int(client.ttl(key)) <= 2 * 60 for key in keys)


def test_old_claims_do_not_swallow_a_topic_that_was_created_anew(redis_url: str) -> None:
    old, new = over_redis(redis_url), over_redis(redis_url)
    new._generations = {"texts.in": "generation-2"}
    claim(old, [job(0, id="a")])
    mark(old, {FIRST: 1})
    assert claim(new, [job(0, id="b")]) == [GO_ON]
    assert claim(new, [job(0, id="a")]) == ["duplicate"], "an id is an id, but it is not taken for written"


def test_a_coordinate_in_a_topic_that_was_created_anew_is_another(redis_url: str) -> None:
    old, new = over_redis(redis_url), over_redis(redis_url)
    new._generations = {"texts.in": "generation-2"}
    claim(old, [undecodable(0), job(1, id="texts.in:0:1")])
    mark(old, {FIRST: 2})
    assert claim(new, [undecodable(0), job(1, id="texts.in:0:1")]) == [GO_ON, GO_ON]
    assert claim(new, [job(7, id="texts.in:0:1")]) == [GO_ON], "a replay has the id that it had first"
    assert claim(new, [job(8, id="texts.in:0:1")]) == ["duplicate"]


def test_scripts_that_redis_forgot_are_sent_again(redis_url: str) -> None:
    claims = over_redis(redis_url)
    claim(claims, [job(0, id="a")])
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert claim(claims, [job(1, id="a")]) == ["duplicate"]


def everything(claims: RedisDeduplicator) -> list[Callable[[], object]]:
    return [
        lambda: claim(claims, [job(0, id="a")]),
        lambda: mark(claims, {FIRST: 1}),
        lambda: claims.give_back([dead(job(0, id="a"))]),
    ]


def test_an_outage_is_waited_for() -> None:
    for call in everything(over_redis(f"redis://127.0.0.1:{free_port()}/0", on_outage="wait")):
        with pytest.raises(TransientError, match="Redis"):
            call()


def test_an_outage_is_gone_past_where_that_was_chosen() -> None:
    claims = over_redis(f"redis://127.0.0.1:{free_port()}/0", on_outage="process")
    jobs = [job(0, id="a"), job(1, id="a")]
    assert claim(claims, jobs) == [GO_ON, GO_ON] and all(one.unclaimed for one in jobs)
    for call in everything(claims):
        call()


def test_after_an_outage_it_goes_on(breakable_redis: RedisServer) -> None:
    claims = over_redis(breakable_redis.url)
    claim(claims, [job(0, id="a")])
    breakable_redis.kill()
    with pytest.raises(TransientError):
        claim(claims, [job(1, id="a")])
    breakable_redis.restart()
    assert claim(claims, [job(1, id="a")]) == [GO_ON], "it came back empty"


def test_a_redis_that_is_away_at_the_start_is_refused() -> None:
    with pytest.raises(StartupError, match=r"redis\.url"):
        over_redis(f"redis://127.0.0.1:{free_port()}/0").check()


def test_a_redis_that_evicts_keys_is_refused(breakable_redis: RedisServer) -> None:
    claims = over_redis(breakable_redis.url)
    claims.check()
    with redis.Redis.from_url(breakable_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        claims.check()  # without a limit nothing is evicted
        client.config_set("maxmemory", "100mb")
        with pytest.raises(StartupError, match="allkeys-lru"):
            claims.check()
        client.config_set("maxmemory-policy", "noeviction")
        claims.check()


def test_a_redis_that_is_full_is_waited_for(breakable_redis: RedisServer) -> None:
    claims = over_redis(breakable_redis.url)
    for first in (0, 10):  # without claims there, and with some
        with redis.Redis.from_url(breakable_redis.url) as client:
            client.config_set("maxmemory", "1")
            with pytest.raises(TransientError):
                claim(claims, [job(first, id=f"id-{first}")])
            client.config_set("maxmemory", "0")
        assert claim(claims, [job(first, id=f"id-{first}")]) == [GO_ON]


def test_what_a_lane_that_has_closed_asked_for_takes_nothing_from_the_next_owner(redis_url: str) -> None:
    lane = Lane(FIRST)
    held = job(0, id="a", lane=lane)
    claim(over_redis(redis_url), [held])
    late, heir = over_redis(redis_url), over_redis(redis_url)
    answer = late.claim([held])
    lane.closed = True
    late.leave({FIRST: 1})
    assert answer.get(5) == [GO_ON]
    again = job(0, id="a")
    assert claim(heir, [again]) == [GO_ON]
    assert again.lane.survived == 1, "it was left in good order: nobody is suspected"


def test_of_one_that_gave_back_and_another_with_its_id_in_a_window_one_goes_on(claims: Deduplicator) -> None:
    """The first one's worker died before that was marked, and both are read again."""
    first, other = job(0, id="a"), job(1, id="a")
    claim(claims, [first])
    claims.give_back([first])
    assert claim(claims, [first, other]) == [GO_ON, "same_window"]


@pytest.mark.parametrize("policy", ["wait", "process"])
def test_an_outage_is_counted_and_its_end_is_seen(breakable_redis: RedisServer, policy: str) -> None:
    metrics = Metrics()
    claims = over_redis(breakable_redis.url, on_outage=policy, metrics=metrics)
    claims.check()
    seen = [metrics.redis_up]
    breakable_redis.kill()
    for ask in (lambda: claim(claims, [job(0, id="a")]), lambda: mark(claims, {FIRST: 1})):
        with contextlib.suppress(TransientError):
            ask()
    seen.append(metrics.redis_up)
    assert metrics.redis_errors == {"claim": 1, "mark": 1}
    breakable_redis.restart()
    mark(claims, {FIRST: 1})
    assert [*seen, metrics.redis_up] == [True, False, True]


@pytest.mark.parametrize("policy", ["wait", "process"])
def test_an_outage_is_seen_by_one_that_has_nothing_to_ask(breakable_redis: RedisServer, policy: str) -> None:
    """As often as it is told to look, and asking once in five seconds."""
    metrics = Metrics()
    claims = over_redis(breakable_redis.url, on_outage=policy, metrics=metrics)
    claims.check()
    claims.look(100.0)
    breakable_redis.kill()
    seen = []
    for now in (101.0, 104.9, 105.0, 109.0, 110.0):
        claims.look(now)
        seen.append(metrics.redis_up)
    assert seen == [True, True, False, False, False]
    assert metrics.redis_errors == {"look": 2}
    breakable_redis.restart()
    claims.look(130.0)
    assert metrics.redis_up
