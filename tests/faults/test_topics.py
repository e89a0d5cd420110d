"""What topics do to those who use them: they are too small, denied or gone, and have gaps."""

from __future__ import annotations

import signal
import time

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Position
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.faults.conftest import MakeWorld
from tests.faults.table import runs
from tests.faults.worker import RAISES
from tests.faults.world import Worker, World, wait_until
from tests.integration.line import Reader
from tests.servers import KafkaServer, add_user, allow


@pytest.mark.case("22")
def test_a_dead_letter_that_its_topic_refuses_holds_the_commit(make_world: MakeWorld) -> None:
    world = make_world(1)
    limit_messages(world, 20_000)
    world.send(20)
    world.send(1, RAISES + " nice film" * 5000, bad=True)
    world.send(50)
    worker = world.start()
    wait_until(lambda: worker.said("cannot write to it"), "the refusal")
    assert worker.said(f"--topic {world.dead_letters} --add-config max.message.bytes="), "the way out"
    fault = world.broken()
    nothing_passes(world, worker, 20)
    limit_messages(world, 3_000_000)
    fault.end = 0.0
    assert world.finish().duplicated == 0


@pytest.mark.case("22")
def test_a_dead_letter_topic_that_is_denied_holds_the_commit(
    make_world: MakeWorld, guarded_kafka: KafkaServer
) -> None:
    world = make_world(1, kafka=guarded_kafka)
    user, operator = world.group, guarded_kafka.bootstrap_servers
    add_user(operator, user, "secret")
    for operation, topic in (
        ("Read", world.input),
        ("Write", world.output),
        ("Describe", world.dead_letters),
    ):
        allow(operator, user, operation, "topic", topic)
    allow(operator, user, "Read", "group", world.group)
    doors = guarded_kafka.doors
    world.config["kafka"] |= {"bootstrap_servers": doors.scram}
    world.config["kafka"]["properties"] |= {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": "secret",
        "ssl.ca.location": str(doors.certificates.ca),
    }
    world.send(20)
    world.send(1, RAISES, bad=True)
    world.send(50)
    worker = world.start()
    wait_until(lambda: worker.said("cannot write to it: TOPIC_AUTHORIZATION_FAILED"), "the refusal")
    assert worker.said(f"the right Write on {world.dead_letters}"), "the way out"
    fault = world.broken()
    nothing_passes(world, worker, 20)
    allow(operator, user, "Write", "topic", world.dead_letters)
    fault.end = 0.0
    assert world.finish().duplicated == 0


@pytest.mark.case("22")
def test_a_dead_letter_topic_that_has_gone_holds_the_commit(make_world: MakeWorld) -> None:
    world = make_world(1)
    # librdkafka believes in a topic that it has seen for half a minute longer.
    world.config["kafka"]["producer"] = {"topic.metadata.propagation.max.ms": "1000"}
    admin = AdminClient({"bootstrap.servers": world.kafka.bootstrap_servers})
    worker = world.start()
    world.send(20)
    world.wait_results(20, worker)
    admin.delete_topics([world.dead_letters])[world.dead_letters].result(timeout=30)
    world.send(1, RAISES, bad=True)
    world.send(50)
    wait_until(lambda: worker.said("cannot write to it"), "the refusal")
    assert worker.said("streamer topics create"), "the way out"
    fault = world.broken()
    nothing_passes(world, worker, 20)
    admin.create_topics([NewTopic(world.dead_letters, 1, 1)])[world.dead_letters].result(timeout=30)
    fault.end = 0.0
    assert world.finish().duplicated == 0


def nothing_passes(world: World, worker: Worker, offset: int) -> None:
    """For two seconds, in which it tries again and again, nothing is committed beyond `offset`."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert worker.runs and world.auditor.committed()[0] <= offset


def limit_messages(world: World, limit: int) -> None:
    admin = AdminClient({"bootstrap.servers": world.kafka.bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, world.dead_letters, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(timeout=30)


@pytest.mark.case("24")
def test_transaction_markers_and_what_was_aborted_are_gaps(make_world: MakeWorld) -> None:
    world = make_world(2)
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers, "transactional.id": world.group})
    producer.init_transactions(30)
    worker = world.start()
    for number in range(runs(10, 100)):
        producer.begin_transaction()
        for item in range(5):
            producer.produce(world.input, b'{"text": "in doubt"}', partition=item % 2)
        producer.flush(10)
        if number % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
        world.send(7)
    world.wait_results(1, worker)
    world.finish()


@pytest.mark.case("24")
def test_a_compacted_topic_has_gaps(make_world: MakeWorld) -> None:
    """Of each key the broker keeps the last record: before the newest segment most offsets are missing."""
    compacted = {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01"}
    world = make_world(1, topics=compacted)
    padding = "so it goes " * 2000
    for number in range(runs(300, 3000)):
        id, key = f"review-{number}", b"customer %d" % (number % 7 or number)
        value = msgspec.json.encode({"id": id, "text": f"{number} {padding}"})
        world.produce(value, 0, id=id, key=key)
    world.flush()
    wait_until(lambda: len(offsets(world)) < len(world.places) // 2, "the cleaner")
    kept = offsets(world)
    assert max(kept) - min(kept) >= len(kept), "there are gaps"
    world.places = {(0, offset): world.places[0, offset] for offset in kept}
    world.start()
    assert world.finish().duplicated == 0


def offsets(world: World) -> set[int]:
    """What is in partition 0 of the input."""
    reader = Reader({"bootstrap.servers": world.kafka.bootstrap_servers}, world.input, 1)
    found = {message.offset() or 0 for message in reader.all()}
    return found


@pytest.mark.case("24")
def test_records_that_retention_has_deleted_are_reported(make_world: MakeWorld) -> None:
    world = make_world(1)
    world.send(100)
    first = world.start()
    world.wait_results(100, first)
    ends = {0: 100}
    wait_until(lambda: world.auditor.latest == ends, "the commit")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    world.send(100)
    admin = AdminClient({"bootstrap.servers": world.kafka.bootstrap_servers})
    for done in admin.delete_records([Position(world.input, 0, 150)]).values():
        done.result(timeout=30)
    for place in [place for place in world.places if 100 <= place[1] < 150]:
        del world.places[place]
    second = world.start()
    world.finish()
    # librdkafka's own words, and the offset from which on records are missing.
    assert second.said("offset reset (at offset 100"), second.log.read_text("utf-8")
