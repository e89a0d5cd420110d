"""Batches of a few kilobytes that unpack to hundreds of megabytes, and such as are damaged."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Position

from tests.faults.conftest import MakeWorld
from tests.faults.proxy import Proxy
from tests.faults.table import runs
from tests.faults.world import Worker, World, wait_until
from tests.servers import KafkaServer


@pytest.mark.case("21")
@pytest.mark.parametrize("codec", runs(["lz4", "zstd"], ["gzip", "lz4", "snappy", "zstd"]))
def test_compression_bombs_die_and_their_partition_moves_on(make_world: MakeWorld, codec: str) -> None:
    """300 MB of zeros in a record, again and again. What is unpacked dies of its size, cut for its topic."""
    # The broker unpacks what it takes, and raw snappy as a whole: the tests' has 512 MB.
    size = 100_000_000 if codec == "snappy" else 300_000_000
    world = make_world(1, topics={"max.message.bytes": "32000000"})  # snappy packs zeros 1 to 21 only
    world.send(20)
    worker = world.start()
    world.wait_results(20, worker)
    before = memory(worker, "VmHWM")
    for _ in range(runs(1, 3)):
        bomb(world, codec, [size])
        world.send(20)
    wait_until(lambda: world.done, "the bombs to be passed")
    peak = memory(worker, "VmHWM") - before
    print(f"{codec}: at its peak {peak / 1e6:.0f} MB more")
    account = world.finish()
    assert account.duplicated == 0
    assert set(world.auditor.reasons.values()) == {"unreadable_batch" if codec == "zstd" else "cut"}
    # Three times its size: unpacked, copied for Python, and the half that is tried first. One at a time.
    assert peak < 3.5 * size, f"{peak:,} bytes"


@pytest.mark.case("21")
def test_a_batch_that_cannot_be_unpacked_is_one_dead_letter(make_world: MakeWorld) -> None:
    """That of its last offset: before others, at the end of a partition, and read again from its middle."""
    world = make_world(2)
    world.send(40)
    bomb(world, "zstd", [900_000] * 330)
    world.send(40)
    bomb(world, "zstd", [900_000] * 150)
    worker = world.start()
    wait_until(lambda: world.done, "the batches to be passed")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    group = {"bootstrap.servers": world.kafka.bootstrap_servers, "group.id": world.group}
    with Consumer(group) as member:
        member.commit(offsets=[Position(world.input, 0, 20 + 100)], asynchronous=False)
    world.start()
    # Without an id there is no claim: what was rewound is written again.
    assert world.finish(twice=True).duplicated <= 1
    ends = 20 + 330, 40 + 330 + 150
    assert world.auditor.reasons == {(0, end - 1): "unreadable_batch" for end in ends}


@pytest.mark.case("21")
@pytest.mark.parametrize(
    ("times", "delivery"), [(1, "at_least_once"), (1 << 30, "at_least_once"), (1 << 30, "exactly_once")]
)
def test_a_damaged_batch_is_read_again_and_is_one_dead_letter_if_that_does_not_help(
    make_world: MakeWorld, breakable_kafka: KafkaServer, kafka_proxy: Proxy, times: int, delivery: str
) -> None:
    """librdkafka passes such a batch over, once another one comes along with it."""
    world = make_world(1, kafka=breakable_kafka, delivery=delivery)
    world.config["kafka"]["bootstrap_servers"] = f"127.0.0.1:{kafka_proxy.port}"
    kafka_proxy.faults.damage, kafka_proxy.faults.times = b"a bit that flips", times
    world.send(20)
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers, "linger.ms": 1000})
    for offset in range(20, 50):
        world.places[0, offset] = f"damaged-{offset}" if times == 1 else None
        producer.produce(
            world.input, b'{"id": "damaged-%d", "text": "a bit that flips"}' % offset, partition=0
        )
    assert producer.flush(30) == 0
    world.send(20)
    if times > 1:
        world.bad.add((0, 49))
    worker = world.start()
    assert world.finish().duplicated == 0
    assert kafka_proxy.faults.damaged and worker.said("cannot be read, looking for its end")
    assert world.auditor.reasons == ({} if times == 1 else {(0, 49): "unreadable_batch"})
    assert worker.said("can be read after all" if times == 1 else "offsets 20 to 49 (30) are a batch")


def bomb(world: World, codec: str, sizes: Sequence[int]) -> None:
    """A batch of zeros in partition 0: of one that cannot be unpacked, the last offset dies for all."""
    bomber = Producer(
        {
            "bootstrap.servers": world.kafka.bootstrap_servers,
            "compression.type": codec,
            "message.max.bytes": 1_000_000_000,
            "batch.size": 1_000_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "linger.ms": 1000,
        }
    )
    for size in sizes:
        bomber.produce(world.input, bytes(size), partition=0)
    assert bomber.flush(60) == 0
    first = len([place for place in world.places if place[0] == 0])
    for offset in range(first, first + len(sizes)):
        world.places[0, offset] = None
    world.bad.add((0, first + len(sizes) - 1))


def memory(worker: Worker, field: str) -> int:
    """A field of what Linux says of its memory, in bytes."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text("ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10
