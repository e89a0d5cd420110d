"""Records that break things: duplicates, poison, bad input, gaps in the log, dead letters without a place."""

from __future__ import annotations

import random
import signal

import msgspec
import pytest

from streamer.codec import Decoder
from streamer.errors import RecordError
from streamer.records import Record
from tests import corpus
from tests.faults.conftest import MakeWorld
from tests.faults.table import runs
from tests.faults.worker import HANGS, KILLS, RAISES, SEGFAULTS, Plan
from tests.faults.world import wait_until
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
