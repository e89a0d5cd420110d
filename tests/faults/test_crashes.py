"""Workers that die: at random, at each point of the line, by signals, and frozen ones that come back."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.faults.conftest import MakeWorld
from tests.faults.table import runs
from tests.faults.worker import RAISES, Plan
from tests.faults.world import Worker, World, wait_until

DELIVERIES = ["at_least_once", "exactly_once"]
MOMENTS = ("before", "inside", "after")
COMMON = [f"{step}:{when}" for step in ("claim", "infer", "publish", "mark") for when in MOMENTS]
COMMIT = [f"commit:{when}" for when in MOMENTS]
TRANSACTION = ["offsets:before", "offsets:after", *(f"transaction:{when}" for when in MOMENTS)]
KILLS = runs(8, 1000)
pytestmark = pytest.mark.timeout(runs(120, 900))


@pytest.mark.case("1")
@pytest.mark.timeout(120 + 5 * KILLS)
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_kill_9_at_random_loses_nothing(make_world: MakeWorld, delivery: str) -> None:
    dice = random.Random(delivery)
    world = make_world(4, delivery=delivery)
    # A worker dies every second here, and one record is alone on the device at several deaths in a row: with
    # the usual limit of 3 it would look like the one that kills. And the fewer records a worker has in hand,
    # the sooner its heir is through with taking them one by one.
    world.config |= {"window": {"max_records": 64}, "limits": {"max_attempts": 10}}
    slots = [world.start(static=f"slot-{slot}", plan=Plan(jitter_ms=5)) for slot in range(2)]
    world.send(2000)
    # It may not even have joined, or wait for the end of the transaction that the dead one had open; most
    # have work in hand.
    moments = [("", 0.8), ("partitions assigned", 1.6), *3 * [("on the device", 0.3)]]
    for _ in range(KILLS):
        slot = dice.randrange(2)
        words, longest = dice.choice(moments)
        wait_until(lambda: fed_says(world, slots[slot], words), f"'{words}'")  # noqa: B023 - called at once
        deadline = time.monotonic() + dice.uniform(0.0, longest)
        wait_until(lambda: time.monotonic() >= deadline, "the time of a kill")  # noqa: B023 - called at once
        world.kill(slots[slot])
        plan = Plan(jitter_ms=5, seed=dice.randrange(1000))
        slots[slot] = world.start(static=f"slot-{slot}", plan=plan)
    account = world.finish()
    assert account.faults == KILLS
    hit = sum(worker.said("records unfinished") for worker in world.workers)
    assert hit > KILLS / 4, f"only {hit} of {KILLS} kills met a worker with work in hand"


def fed_says(world: World, worker: Worker, words: str) -> bool:
    """Whether `worker` has said it. There is work for it meanwhile, which the other one cannot take all."""
    if len(world.places) - world.results < 1500:
        world.send(750)
        world.send(1, RAISES, bad=True)
        world.send(750)
    return worker.said(words)


@pytest.mark.case("2")
def test_sigterm_in_a_slow_batch_finishes_it(make_world: MakeWorld) -> None:
    world = make_world(2)
    world.config |= {"fake": {"base_ms": 800.0}, "window": {"max_records": 16}}
    world.send(96)
    first = world.start()
    world.wait_results(10, first)
    started = time.monotonic()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert time.monotonic() - started < 20, "limits.drain_s"
    assert not world.done, "it left work behind"
    world.start(fake={"base_ms": 1.0})
    assert world.finish().duplicated == 0


@pytest.mark.case("3")
@pytest.mark.parametrize("time", runs([1], [1, 2, 3, 5, 8]))
@pytest.mark.parametrize(
    ("delivery", "points"),
    [
        ("at_least_once", COMMON + COMMIT),
        ("exactly_once", runs(["publish:inside", *TRANSACTION, "mark:before"], COMMON + TRANSACTION)),
    ],
)
def test_a_crash_at_each_point_of_the_line(
    make_world: MakeWorld, delivery: str, points: list[str], time: int
) -> None:
    world = make_world(2, delivery=delivery)
    # One record is alone on the device in several lives: to a worker it looks like the one that kills.
    world.config |= {"window": {"max_records": 16}, "limits": {"max_attempts": 100}}
    for point in points:
        for _ in range(30 * time):
            world.send(3)
            world.send_broken(1)
        worker = world.start(static="slot-0", plan=Plan(point=point, time=time, jitter_ms=20 * time))
        assert world.crashed(worker) == -signal.SIGKILL, worker.log.read_text("utf-8")
    world.start(static="slot-0")
    assert world.finish().faults == len(points)


@pytest.mark.case("4")
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_zombie_that_wakes_after_its_session_harms_nobody(make_world: MakeWorld, delivery: str) -> None:
    world = make_world(4, delivery=delivery)
    world.send(4000)
    zombie, heir = world.start(plan=Plan(jitter_ms=20)), world.start(plan=Plan(jitter_ms=20))
    wait_until(lambda: heir.said("partitions assigned"), "both workers")
    world.wait_results(200, zombie, heir)
    fault = world.broken()
    zombie.signal(signal.SIGSTOP)
    before = heir.log.read_text("utf-8").count("partitions assigned")
    wait_until(lambda: heir.log.read_text("utf-8").count("partitions assigned") > before, "the take-over")
    world.wait_results(200, heir)
    zombie.signal(signal.SIGCONT)
    world.wait_results(200, zombie, heir)
    fault.end = time.time()
    world.finish()


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param("classic", marks=pytest.mark.case("5")),
        pytest.param("consumer", marks=pytest.mark.case("5b")),
    ],
)
@pytest.mark.timeout(120 + 6 * runs(2, 50))
def test_workers_join_and_leave(make_world: MakeWorld, protocol: str) -> None:
    world = make_world(4)
    settings = (
        {"group.protocol": "consumer"} if protocol == "consumer" else dict(world.config["kafka"]["consumer"])
    )
    world.config["kafka"]["consumer"] = settings
    world.send(1000)
    workers = [world.start(plan=Plan(jitter_ms=20))]
    for _ in range(runs(2, 50)):
        workers.append(world.start(plan=Plan(jitter_ms=20)))
        wait_until(lambda: workers[-1].said("partitions assigned"), "the new worker")
        world.send(1000)
        world.wait_results(300, *workers)
        leaving = workers.pop(0)
        leaving.signal(signal.SIGTERM)
        assert leaving.wait() == 0, leaving.log.read_text("utf-8")
    assert world.finish().duplicated == 0, "nothing broke"


@pytest.mark.case("6")
def test_a_batch_longer_than_the_poll_interval_is_no_reason_to_leave(make_world: MakeWorld) -> None:
    world = make_world(1)
    world.config["kafka"]["consumer"] |= {"max.poll.interval.ms": "3000"}
    world.config["fake"] = {"base_ms": 5000.0}
    world.send(16)
    worker = world.start()
    assert world.finish().duplicated == 0
    assert not worker.said("MAXPOLL") and not worker.said("partitions lost")
