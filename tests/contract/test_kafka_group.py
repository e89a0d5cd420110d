"""What a transaction asks of the consumer: is it a member, and what has been committed?"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import pytest
from confluent_kafka import Consumer

from streamer.errors import FatalError, TransientError
from streamer.records import TopicPartition
from streamer.sources.commits import HANDOVER
from streamer.sources.group import KafkaGroup
from streamer.sources.kafka import KafkaSource
from tests.conftest import MakeTopic
from tests.contract.source_worlds import KafkaWorld, Listener, read, until
from tests.servers import KafkaServer


def member(server: KafkaServer, topic: str, **settings: str) -> tuple[KafkaSource, Listener]:
    common = {"bootstrap.servers": server.bootstrap_servers, "group.id": f"group-{topic}"}
    source, listener = KafkaSource(topic, {**common, "session.timeout.ms": "6000", **settings}), Listener()
    source.subscribe(listener)
    return source, listener


def test_who_has_not_joined_or_has_left_shows_no_membership(
    kafka: KafkaServer, make_topic: MakeTopic
) -> None:
    source, listener = member(kafka, make_topic("in", 1))
    assert source.group.membership() is None
    until(lambda: bool(listener.owned), source)
    assert source.group.membership() is not None
    source._consumer.unsubscribe()
    until(lambda: source.group.membership() is None, source)
    source.close()


def test_only_partitions_with_an_offset_are_told(kafka: KafkaServer, make_topic: MakeTopic) -> None:
    topic = make_topic("in", 2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source, listener = member(kafka, topic)
    until(lambda: len(listener.owned) == 2, source)
    assert source.group.committed([first, second]) == {}
    source.commit({first: 0})
    source.flush(10.0)
    assert source.group.committed([first, second]) == {first: 0}
    source.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_last_commit_has_happened_when_a_partition_goes_even_if_others_are_unanswered(
    kafka: KafkaServer, make_topic: MakeTopic, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = KafkaWorld(kafka.bootstrap_servers, make_topic("in", 2), 2, protocol)
    for number in range(20):
        world.append(b"%d" % number, number % 2)
    source, listener = world.member()
    assert isinstance(source, KafkaSource)
    read(source, 20)
    commits, there = source._commits, dict[int, int]()

    def settle(event: str, partitions: Sequence[TopicPartition]) -> None:
        for offset in range(1, 11 if event == "revoked" else 1):
            commits.add(dict.fromkeys(partitions, offset))
            if offset < 10:
                commits.send()

    def look(partitions: Sequence[TopicPartition]) -> None:
        there.update(world.committed())
        disown(partitions)

    listener.on, disown = settle, commits.disown
    monkeypatch.setattr(commits, "disown", look)
    gone = world.take_one_away(source, listener)
    assert there[gone.partition] == 10
    world.close()


def test_parting_from_a_frozen_broker_takes_a_bounded_time(
    breakable_kafka: KafkaServer, make_topic: MakeTopic
) -> None:
    topic = make_topic("in", 1, server=breakable_kafka)
    source, listener = member(breakable_kafka, topic)
    until(lambda: bool(listener.owned), source)
    breakable_kafka.suspend()
    source._commits.add({TopicPartition(topic, 0): 0})
    source._commits.send()
    source._commits.add({TopicPartition(topic, 0): 1})
    started = monotonic()
    source._commits.hand_over([TopicPartition(topic, 0)])
    assert monotonic() - started < HANDOVER + 1.0
    assert not source.exhausted(), "nobody says so"
    breakable_kafka.resume()
    source.close()


def test_a_broker_that_is_away_is_a_transient_error() -> None:
    consumer = Consumer({"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0})
    with pytest.raises(TransientError, match="committed offsets"):
        KafkaGroup(consumer).committed([TopicPartition("texts.in", 0)])
    consumer.close()


def test_a_static_member_whose_place_is_taken_ends(kafka: KafkaServer, make_topic: MakeTopic) -> None:
    topic = make_topic("in", 1)
    elder, listener = member(kafka, topic, **{"group.instance.id": "slot", "heartbeat.interval.ms": "200"})
    until(lambda: bool(listener.owned), elder)
    younger, _ = member(kafka, topic, **{"group.instance.id": "slot", "heartbeat.interval.ms": "200"})
    with pytest.raises(FatalError, match="fenced by other consumer"):
        until(lambda: False, elder, younger)
    elder.close()
    younger.close()
