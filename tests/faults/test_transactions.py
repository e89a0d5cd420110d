"""Exactly once: a transaction that outlives the broker's patience, and an id that belongs to two workers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import redis

from tests.faults.conftest import MakeWorld
from tests.faults.worker import RAISES, Plan
from tests.faults.world import ROOT, Worker, World, wait_until

BUSY = Plan(jitter_ms=20)


def make_transactional(make_world: MakeWorld, interval_ms: int) -> World:
    """Kafka alone has to see to it that nothing comes twice: there are no claims."""
    world = make_world(2, delivery="exactly_once")
    world.config["deduplication"] = {"enabled": False}
    world.config["kafka"]["transaction_interval_ms"] = interval_ms
    for _ in range(4):
        world.send(500)
        world.send(5, RAISES, bad=True)
    return world


def wait_for_an_open_transaction(world: World, worker: Worker) -> None:
    world.wait_results(50, worker)
    wait_until(lambda: world.auditor.in_transactions > 0, "results in an open transaction")


@pytest.mark.case("12")
def test_a_transaction_that_times_out_is_written_again_without_another_inference(
    make_world: MakeWorld,
) -> None:
    world = make_transactional(make_world, 400)
    world.config["kafka"]["consumer"]["session.timeout.ms"] = "30000"
    worker = world.start(plan=BUSY)
    wait_for_an_open_transaction(world, worker)
    fault = world.broken()
    worker.signal(signal.SIGSTOP)
    wait_until(lambda: world.auditor.in_transactions == 0, "the broker's patience to end")
    worker.signal(signal.SIGCONT)
    fault.end = time.time()
    assert world.finish().duplicated == 0
    assert worker.said("going on with a new producer"), "it was hit in a transaction"
    done = "done: 2000 results, 20 dead letters, 0 skipped, of 2020 records"
    assert worker.said(done), "each was read once"
    assert world.auditor.in_transactions == 0, "none is left hanging"


@pytest.mark.case("13")
def test_of_two_workers_with_one_transactional_id_the_elder_ends_with_code_5(make_world: MakeWorld) -> None:
    world = make_transactional(make_world, 100)
    world.config["kafka"]["transactional_id"] = f"{world.group}.same"
    elder = world.start(plan=BUSY)
    wait_for_an_open_transaction(world, elder)
    fault = world.broken()
    world.start(plan=BUSY)

    def ended() -> bool:
        world.send(2)  # it finds out when it has something to publish
        return not elder.runs

    wait_until(ended, "the end of the elder")
    assert elder.wait() == 5
    fault.end = time.time()
    assert elder.said("give each a kafka.transactional_id of its own")
    assert world.finish().duplicated == 0
    assert world.auditor.in_transactions == 0, "none is left hanging"


def test_what_died_and_was_committed_and_not_marked_can_be_replayed(make_world: MakeWorld) -> None:
    """Its worker was killed before it gave the claim back, and nobody reads the record again."""
    world = make_world(1, delivery="exactly_once")
    world.send(20)
    world.send(1, RAISES, bad=True)
    (dead,) = world.bad
    worker = world.start(static="slot-0", plan=Plan(point="give_back:before"))
    assert world.crashed(worker) == -signal.SIGKILL
    wait_until(lambda: dead in world.auditor.dead, "the dead letter")
    assert world.auditor.committed() == {0: 21}
    id = world.places[dead]
    with redis.Redis.from_url(world.redis_url) as client:
        assert client.hexists(f"{{streamer:{world.group}}}:claims", id), "the claim of a dead record"
    worker = world.start(static="slot-0", plan=Plan(cured=True))
    config = str(world.folder / "worker-1.yaml")
    command = [sys.executable, "-m", "streamer", "dlq", "replay", "--config", config]
    replay = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert replay.returncode == 0, replay.stderr
    wait_until(lambda: id in world.auditor.ids, "the result of the replayed record")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert all(len(copies) == 1 for copies in [*world.auditor.results.values(), *world.auditor.dead.values()])
