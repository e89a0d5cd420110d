"""What claims say of records that an earlier run left unfinished, over memory and over a real Redis."""

from __future__ import annotations

import redis

from streamer.protocols import Deduplicator
from streamer.records import TopicPartition
from tests.contract.jobs import claim, job, mark
from tests.contract.test_deduplicator import claims, over_redis

__all__ = ["claims"]  # a fixture


def test_a_claim_of_my_own_that_is_not_written_makes_a_suspect(claims: Deduplicator) -> None:
    claim(claims, [job(4, id="a"), job(5, id="b")])
    mark(claims, {TopicPartition("texts.in", 0): 5})
    again = [job(4, id="a"), job(5, id="b"), job(6, id="c")]
    assert claim(claims, again) == ["redelivered", None, None]
    assert [one.suspect for one in again[1:]] == [True, False]


def test_what_was_left_in_good_order_is_told_once(claims: Deduplicator) -> None:
    first, second = TopicPartition("texts.in", 0), TopicPartition("texts.in", 1)
    claim(claims, [job(4, id="a"), job(4, 1, id="b")])
    claims.leave({first: 5, second: 9})
    heir, stranger = job(4, id="a"), job(4, id="a")
    claim(claims, [heir])
    assert heir.lane.survived == 5
    claim(claims, [stranger])
    assert stranger.suspect and stranger.lane.survived == -1, "the heir had it in hand"
    other = job(4, 1, id="b")
    claim(claims, [other])
    assert other.lane.survived == 9
    claims.leave({})


def test_starts_are_counted_by_coordinate_until_it_comes_back(claims: Deduplicator) -> None:
    assert [claims.begin(job(4)), claims.begin(job(4)), claims.begin(job(4, 1))] == [1, 2, 1]
    claims.end(job(4))
    assert [claims.begin(job(4)), claims.begin(job(4, 1))] == [1, 2]
    claims.end(job(99))


def test_counts_do_not_stay_for_ever(redis_url: str) -> None:
    over_redis(redis_url).begin(job(4))
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < int(client.ttl("{test:claim}:starts")) <= 2 * 60
