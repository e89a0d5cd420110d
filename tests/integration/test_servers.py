"""The test servers themselves: what the other integration and fault tests take for granted."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer, KafkaError, Message, Producer

from tests.conftest import MakeTopic
from tests.servers import KafkaServer, RedisServer, add_user, allow

COUNT = 1000


def produce(server: KafkaServer, topic: str, values: list[str], **settings: Any) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, **settings})
    failed: list[str] = []
    for value in values:
        producer.produce(
            topic, value, on_delivery=lambda error, _: failed.append(str(error)) if error else None
        )
    assert producer.flush(30) == 0
    assert failed == []


def consume(server: KafkaServer, topic: str, count: int, **settings: Any) -> list[str]:
    """The values of the first `count` records that a new group reads."""
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            **settings,
        }
    )
    consumer.subscribe([topic])
    values: list[str] = []
    deadline = time.monotonic() + 30
    while len(values) < count and time.monotonic() < deadline:
        values.extend(value(message) for message in consumer.consume(count - len(values), 0.2))
    consumer.commit(asynchronous=False)
    consumer.close()
    return values


def value(message: Message) -> str:
    assert message.error() is None
    raw = message.value()
    assert isinstance(raw, bytes)
    return raw.decode()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_records_come_back_once(
    kafka: KafkaServer, make_topic: MakeTopic, protocol: str, idempotent: bool
) -> None:
    topic = make_topic("smoke", partitions=4)
    sent = [str(number) for number in range(COUNT)]
    produce(kafka, topic, sent, **{"enable.idempotence": idempotent})
    assert Counter(consume(kafka, topic, COUNT, **{"group.protocol": protocol})) == Counter(sent)


def test_an_aborted_transaction_is_not_read(kafka: KafkaServer, make_topic: MakeTopic) -> None:
    topic = make_topic("transactions")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, "aborted")
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    for number in range(COUNT):
        producer.produce(topic, str(number))
    producer.commit_transaction(30)
    assert consume(kafka, topic, COUNT) == [str(number) for number in range(COUNT)]


def test_a_topic_has_the_partitions_and_settings_asked_for(kafka: KafkaServer, make_topic: MakeTopic) -> None:
    topic = make_topic("settings", partitions=3, config={"max.message.bytes": "2000"})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    assert len(producer.list_topics(topic, timeout=10).topics[topic].partitions) == 3
    errors: list[str] = []
    producer.produce(
        topic, "x" * 3000, on_delivery=lambda error, _: errors.append(error.name() if error else "none")
    )
    producer.flush(30)
    assert errors == ["MSG_SIZE_TOO_LARGE"]


def test_what_was_acknowledged_survives_kill_and_restart(
    breakable_kafka: KafkaServer, make_topic: MakeTopic
) -> None:
    topic = make_topic("kill", partitions=2, server=breakable_kafka)
    sent = [str(number) for number in range(COUNT)]
    produce(breakable_kafka, topic, sent, acks="all")
    breakable_kafka.kill()
    breakable_kafka.restart()
    assert Counter(consume(breakable_kafka, topic, COUNT)) == Counter(sent)


def test_a_frozen_broker_answers_again_once_thawed(
    breakable_kafka: KafkaServer, make_topic: MakeTopic
) -> None:
    topic = make_topic("freeze", server=breakable_kafka)
    producer = Producer({"bootstrap.servers": breakable_kafka.bootstrap_servers})
    producer.list_topics(topic, timeout=10)
    breakable_kafka.suspend()
    producer.produce(topic, "patience")
    assert producer.flush(0.5) == 1
    breakable_kafka.resume()
    assert producer.flush(30) == 0
    assert consume(breakable_kafka, topic, 1) == ["patience"]


@pytest.mark.parametrize("door", ["scram", "mtls"])
def test_a_user_may_do_what_was_allowed_and_nothing_else(
    guarded_kafka: KafkaServer, make_topic: MakeTopic, door: str
) -> None:
    doors, name = guarded_kafka.doors, f"writer-{door}"
    settings = {"bootstrap.servers": getattr(doors, door), "ssl.ca.location": str(doors.certificates.ca)}
    if door == "scram":
        add_user(guarded_kafka.bootstrap_servers, name, "secret")
        settings |= {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}
        settings |= {"sasl.username": name, "sasl.password": "secret"}
    else:
        certificate, key = doors.certificates.issue(name)
        settings |= {"security.protocol": "SSL", "ssl.key.location": str(key)}
        settings |= {"ssl.certificate.location": str(certificate)}
    topics = [make_topic(server=guarded_kafka) for _ in range(2)]
    allow(guarded_kafka.bootstrap_servers, name, "WRITE", "TOPIC", topics[0])
    reports: dict[str | None, str] = {}

    def report(error: KafkaError | None, sent: Message) -> None:
        reports[sent.topic()] = error.name() if error else "written"

    producer = Producer({**settings, "message.timeout.ms": 15_000})
    for topic in topics:
        producer.produce(topic, "x", on_delivery=report)
    assert producer.flush(20) == 0
    assert reports == {topics[0]: "written", topics[1]: "TOPIC_AUTHORIZATION_FAILED"}


def test_redis_answers_and_runs_scripts(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.dbsize() == 0
        assert client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "key", "value") == b"OK"
        assert client.get("key") == b"value"


def test_redis_database_is_empty_again(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_redis_can_be_killed_frozen_and_restarted(breakable_redis: RedisServer) -> None:
    with redis.Redis.from_url(breakable_redis.url, socket_timeout=0.3, retry=None) as client:
        client.set("key", "value")
        breakable_redis.suspend()
        with pytest.raises(redis.TimeoutError):
            client.get("key")
        breakable_redis.resume()
        assert client.get("key") == b"value"
        breakable_redis.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        breakable_redis.restart()
        assert client.get("key") is None
