"""What a broker does too seldom to wait for: rebalances and errors in the middle of a poll."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as Position

from streamer.codec import Decoder
from streamer.errors import RecordError
from streamer.records import TopicPartition
from streamer.sources.commits import HANDOVER
from tests.unit.kafka_rig import FIRST, Message, Rig


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.assign()
    return made


def end(offset: int, partition: int = 0) -> Message:
    return Message(offset, partition, KafkaError(KafkaError._PARTITION_EOF))


def test_the_end_that_comes_with_the_last_records_is_not_forgotten(rig: Rig) -> None:
    rig.consumer.queue = [Message(0), Message(1), end(2)]
    assert rig.poll() == [0, 1]
    assert rig.source.ends() == {FIRST: 2}


def test_a_record_after_the_end_takes_it_back(rig: Rig) -> None:
    rig.consumer.queue = [end(0), Message(0)]
    assert rig.poll() == [0]
    assert rig.source.ends() == {}


def test_a_record_of_a_partition_that_goes_in_the_same_poll_is_dropped(rig: Rig) -> None:
    rig.consumer.queue = [Message(7), rig.revoke]
    assert rig.poll() == []
    rig.assign()
    rig.consumer.queue = [Message(8), rig.lose]
    assert rig.poll() == []


def test_a_record_of_an_assignment_that_ended_meanwhile_is_dropped(rig: Rig) -> None:
    """It would come before the records from the committed offset on, and a commit would pass those."""
    rig.consumer.queue = [Message(7), rig.revoke, rig.assign, Message(3), Message(4)]
    assert rig.poll() == [3, 4]


def test_records_of_partitions_that_stay_are_kept(rig: Rig) -> None:
    rig.assign(1)
    rig.consumer.queue = [Message(7), lambda: rig.revoke(1), Message(8)]
    assert rig.poll() == [7, 8]


def test_a_partition_that_goes_takes_its_end_and_its_offsets_along(rig: Rig) -> None:
    rig.consumer.queue = [end(0)]
    rig.poll()
    rig.source.commit({FIRST: 5})
    rig.lose()
    assert rig.source.ends() == {}
    rig.assign()
    rig.source.flush(1.0)
    assert rig.consumer.commits == []


def test_commits_carry_the_newest_offset_and_one_is_under_way_at_a_time(rig: Rig) -> None:
    rig.now = 10.0
    rig.source.commit({FIRST: 5})
    rig.source.commit({FIRST: 6})
    rig.poll()
    assert rig.consumer.commits == [({FIRST: 6}, True)]
    rig.source.commit({FIRST: 7})
    rig.now = 20.0
    rig.poll()
    assert len(rig.consumer.commits) == 1
    rig.answer(6)
    rig.poll()
    assert rig.consumer.commits[1:] == [({FIRST: 7}, True)]


def test_a_commit_that_failed_is_tried_again_unless_a_newer_one_waits(rig: Rig) -> None:
    rig.now = 10.0
    rig.source.commit({FIRST: 5})
    rig.poll()
    rig.answer(5, KafkaError(KafkaError._TRANSPORT))
    rig.now = 20.0
    rig.poll()
    assert rig.consumer.commits[1:] == [({FIRST: 5}, True)]
    rig.source.commit({FIRST: 9})
    rig.answer(5, KafkaError(KafkaError._TRANSPORT))
    rig.now = 30.0
    rig.poll()
    assert rig.consumer.commits[2:] == [({FIRST: 9}, True)]


@pytest.mark.parametrize("code", [KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH])
def test_a_commit_of_an_older_generation_goes_again_for_what_is_still_owned(rig: Rig, code: int) -> None:
    """The group moved while it was under way; the partition stayed, and nobody else will commit it."""
    rig.now = 10.0
    rig.assign(1)
    rig.source.commit({FIRST: 5, TopicPartition("texts.in", 1): 9})
    rig.poll()
    rig.lose(1)
    both = [Position("texts.in", 0, 5), Position("texts.in", 1, 9)]
    rig.source._on_commit(KafkaError(code), both)
    rig.now = 20.0
    rig.poll()
    assert rig.consumer.commits[1:] == [({FIRST: 5}, True)]


def test_headers_that_cannot_be_read_make_a_dead_letter_not_a_crash(rig: Rig) -> None:
    class Broken(Message):
        def headers(self) -> None:
            raise SystemError("returned a result with an exception set")

    rig.consumer.queue = [Message(0), Broken(1), Message(2)]
    records = rig.source.poll(100, 0.0)
    assert [record.offset for record in records] == [0, 1, 2]
    assert [bool(record.defect) for record in records] == [False, True, False]
    with pytest.raises(RecordError) as refused:
        Decoder("json", ["coordinate"], 1000).decode(records[1])
    assert refused.value.reason == "invalid_headers"


def test_what_is_settled_while_a_partition_goes_is_committed_before_it_is_gone(rig: Rig) -> None:
    rig.listener.on = lambda event, partitions: rig.source.commit({FIRST: 5})
    rig.revoke()
    assert rig.consumer.commits == [({FIRST: 5}, True)]
    assert rig.consumer.committed_asked == [HANDOVER], "the group has it before the partition goes"


@pytest.mark.parametrize("answers", [True, False])
def test_a_commit_that_is_not_answered_goes_again_when_its_partition_goes(rig: Rig, answers: bool) -> None:
    rig.now = 10.0
    rig.assign(1)
    rig.source.commit({FIRST: 4, TopicPartition("texts.in", 1): 7})
    rig.poll()
    rig.source.commit({FIRST: 5})
    rig.consumer.answers = answers
    rig.revoke(1)
    assert rig.consumer.commits[1:] == [({FIRST: 5, TopicPartition("texts.in", 1): 7}, True)]
    assert rig.consumer.committed_asked == [HANDOVER]
    rig.lose()
    assert len(rig.consumer.commits) == 2, "and what is lost is not committed"


def test_a_commit_that_failed_late_takes_nothing_back(rig: Rig) -> None:
    rig.now = 10.0
    rig.assign(1)
    rig.source.commit({FIRST: 4, TopicPartition("texts.in", 1): 1})
    rig.poll()
    rig.source.commit({FIRST: 9})
    rig.revoke(1)
    rig.answer(4, KafkaError(KafkaError._TIMED_OUT))
    rig.answer(9)
    rig.now = 20.0
    rig.poll()
    assert rig.consumer.commits[2:] == [({FIRST: 9}, True)]


def test_the_end_is_asked_for_and_a_broker_that_is_away_has_none(rig: Rig) -> None:
    rig.consumer.queue = [Message(0), end(1)]
    rig.poll()
    rig.consumer.end = 1
    assert rig.source.exhausted()
    rig.consumer.end = 2
    assert not rig.source.exhausted(), "more has come, and is not here yet"
    rig.consumer.end, rig.consumer.answers = 1, False
    assert not rig.source.exhausted()


def statistics(partition: dict[str, int], **rest: Any) -> str:
    partitions = {"0": partition, "1": {"ls_offset": 9, "app_offset": 0}, "-1": {"ls_offset": -1001}}
    return json.dumps({"topics": {"texts.in": {"partitions": partitions}}, **rest})


@pytest.mark.parametrize(
    ("partition", "ends", "lag"),
    [
        ({"ls_offset": 100, "app_offset": 93, "consumer_lag": 100}, {}, {FIRST: 7}),  # not the committed one
        ({"ls_offset": 100, "app_offset": -1001, "consumer_lag": 20}, {}, {FIRST: 20}),  # nothing read yet
        ({"ls_offset": 100, "app_offset": -1001, "consumer_lag": -1}, {}, {}),  # nor committed: unknown
        ({"ls_offset": -1001, "app_offset": 5, "consumer_lag": -1}, {}, {}),
        ({"ls_offset": 100, "app_offset": 97}, {FIRST: 100}, {FIRST: 0}),  # markers of transactions
        ({"ls_offset": 0, "app_offset": -1001}, {FIRST: 0}, {FIRST: 0}),  # empty
    ],
)
def test_statistics_tell_the_lag_of_what_is_owned_or_that_it_is_not_known(
    rig: Rig, partition: dict[str, int], ends: dict[TopicPartition, int], lag: dict[TopicPartition, int]
) -> None:
    rig.source._ends.update(ends)
    rig.source._on_statistics(statistics(partition))
    assert rig.source.lag() == lag


def test_statistics_tell_what_it_is_connected_to(rig: Rig) -> None:
    brokers = {
        "one": {"nodeid": 1, "state": "UP"},
        "two": {"nodeid": 2, "state": "DOWN"},
        "GroupCoordinator": {"nodeid": -1, "state": "UP"},
    }
    rig.consumer.member = "me"
    rig.source._on_statistics(statistics({}, brokers=brokers, cgrp={"state": "up"}))
    assert (rig.metrics.brokers_up, rig.metrics.member) == (1, True)
    rig.source._on_statistics(statistics({}, brokers=brokers, cgrp={"state": "wait-coord"}))
    assert not rig.metrics.member, "the group's coordinator has gone"
    rig.consumer.member = ""
    rig.source._on_statistics(statistics({}, cgrp={"state": "up"}))
    assert (rig.metrics.brokers_up, rig.metrics.member) == (0, False), "thrown out"


def test_commits_and_errors_are_counted(rig: Rig) -> None:
    rig.source.commit({FIRST: 5})
    rig.poll()
    rig.now += 0.3
    rig.answer(5, KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
    rig.source._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert (sum(rig.metrics.commits.counts), round(rig.metrics.commits.sum, 3)) == (1, 0.3)
    assert rig.metrics.kafka_errors == {
        ("consumer", "REBALANCE_IN_PROGRESS"): 1,
        ("consumer", "_ALL_BROKERS_DOWN"): 1,
    }
