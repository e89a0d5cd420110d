"""Records that break things: duplicates, poison, bad input, gaps in the log, dead letters without a place."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Position
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from streamer.codec import Decoder
from streamer.errors import RecordError
from streamer.records import Record
from tests import corpus
from tests.faults.conftest import MakeWorld
from tests.faults.table import runs
from tests.faults.worker import HANGS, KILLS, RAISES, SEGFAULTS, Plan
from tests.faults.world import Worker, World, wait_until
from tests.integration.line import review

NO_LIMIT = {"dead_letter_share": None, "dead_letters_in_a_row": None}


@pytest.mark.case("18")
def test_duplicates_in_a_window_across_partitions_and_across_workers(make_world: MakeWorld) -> None:
    dice = random.Random(18)
    world = make_world(4)
    workers = [world.start(plan=Plan(jitter_ms=10, seed=seed)) for seed in range(2)]
    for worker in workers:
        wait_until(lambda: worker.said("partitions assigned"), "both workers")  # noqa: B023
    for number in range(runs(2000, 20_000)):
        id = f"id-{dice.randint(max(0, number - 200), number)}"
        value = msgspec.json.encode({"id": id, "text": review(dice)})
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            world.produce(value, dice.randrange(4), id=id)
    world.flush()
    assert world.finish().duplicated == 0


@pytest.mark.case("19")
def test_records_that_make_their_batch_raise_die_alone(make_world: MakeWorld) -> None:
    world = make_world(2)
    for _ in range(5):
        world.send(60)
        world.send(1, RAISES, bad=True)
    world.start()
    assert world.finish().duplicated == 0
    assert set(world.auditor.reasons.values()) == {"infer_failed"}


@pytest.mark.case("19b")
@pytest.mark.parametrize("kind", runs([SEGFAULTS], [SEGFAULTS, KILLS, HANGS]))
def test_a_record_that_kills_its_worker_dies_after_three_starts(make_world: MakeWorld, kind: str) -> None:
    world = make_world(2)
    world.config["limits"] = {"hang_s": 2, "drain_s": 1, "revoke_s": 1}
    world.send(150)
    world.send(1, kind, bad=True)
    world.send(150)
    codes = []
    for _ in range(3):
        codes.append(world.crashed(world.start(static="slot-0")))
    assert codes == [{SEGFAULTS: -signal.SIGSEGV, KILLS: -signal.SIGKILL, HANGS: 6}[kind]] * 3
    world.start(static="slot-0")
    world.finish()
    (place,) = world.bad
    assert world.auditor.reasons == {place: "kills_the_worker"} and world.auditor.attempts == {place: 3}


@pytest.mark.case("20")
def test_bad_input_and_random_bytes(make_world: MakeWorld) -> None:
    dice = random.Random(20)
    world = make_world(2)
    world.config |= {"input": {"max_bytes": corpus.MAX_BYTES}, "limits": NO_LIMIT}
    decoder = Decoder("json", ["header", "field", "content", "coordinate"], corpus.MAX_BYTES)
    good = [case.value for case in corpus.JSON if len(case.value) < 300]
    values = [(case.value, case.headers) for case in corpus.JSON]
    values += [(mutated(dice, dice.choice(good)), ()) for _ in range(runs(4000, 20_000))]
    for number, (value, headers) in enumerate(values):
        try:
            id = decoder.decode(Record(world.input, 0, number, 0, None, value, list(headers)))[0]
        except RecordError:
            id = ""
        world.produce(value, number % 2, id=id, bad=not id, headers=headers)
    world.flush()
    world.start()
    world.finish()


def mutated(dice: random.Random, value: bytes) -> bytes:
    changed = bytearray(value)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(3):
            case 0:
                changed[at:at] = dice.randbytes(dice.randint(1, 4))
            case 1:
                del changed[at : at + dice.randint(1, 8)]
            case _:
                changed[at : at + 1] = dice.choice([b'"', b"{", b"}", b"\\", b"\0", b"\xff", b"9", b","])
    return bytes(changed)


@pytest.mark.case("21")
@pytest.mark.parametrize("codec", runs(["gzip", "zstd"], ["gzip", "lz4", "snappy", "zstd"]))
def test_compression_bombs_die_and_their_partition_moves_on(make_world: MakeWorld, codec: str) -> None:
    """300 MB of zeros in a record, three times. What is unpacked dies of its size, cut for its topic."""
    # The broker unpacks what it takes, and raw snappy as a whole: the tests' has 512 MB.
    size = 100_000_000 if codec == "snappy" else 300_000_000
    world = make_world(1, topics={"max.message.bytes": "32000000"})  # snappy packs zeros 1 to 21 only
    world.send(20)
    worker = world.start()
    world.wait_results(20, worker)
    before = memory(worker, "VmHWM")
    for _ in range(3):
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
    for _ in range(3):
        samples = world.auditor.samples
        wait_until(lambda: world.auditor.samples > samples, "a look at the commits")  # noqa: B023
        assert worker.runs and world.auditor.latest[0] <= 20
    limit_messages(world, 3_000_000)
    fault.end = 0.0
    assert world.finish().duplicated == 0


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


@pytest.mark.case("25")
def test_out_of_device_memory_at_random_sizes(make_world: MakeWorld) -> None:
    world = make_world(2)
    world.send(runs(1500, 15_000))
    world.start(plan=Plan(fits=3, seed=25))
    assert world.finish().duplicated == 0
    assert not world.auditor.dead


def test_a_flood_of_dead_letters_stops_the_worker_before_it_is_written(make_world: MakeWorld) -> None:
    world = make_world(1)
    world.config["window"] = {"max_records": 32}
    world.send(300, bad=False)
    for number in range(1000):
        world.produce(b"not JSON", 0, id=None, bad=True, headers=[("n", str(number).encode())])
    world.flush()
    worker = world.start()
    assert worker.wait() == 4
    assert worker.said("invalid_json") and worker.said("limits.dead_letters_in_a_row")
    world.auditor.stop()
    assert len(world.auditor.dead) <= 100 and world.auditor.violations == []
    assert world.auditor.latest[0] <= 400
