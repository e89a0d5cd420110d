"""Kafka, Redis and the network between: killed, frozen, cut, slow, half-open, and replies that are lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.faults.conftest import MakeWorld
from tests.faults.proxy import END_TXN, OFFSET_COMMIT, Proxy, kafka_request
from tests.faults.table import runs
from tests.faults.worker import Plan
from tests.faults.world import World, wait_until
from tests.servers import KafkaServer, RedisServer

DELIVERIES = ["at_least_once", "exactly_once"]
SECONDS = runs(3, 30)
pytestmark = pytest.mark.timeout(runs(120, 900))
BUSY = Plan(jitter_ms=30)
ALIVE = "the worker lived, and knows what was under way when it lost its partitions"
HANGS = [
    pytest.param("classic", "infer:inside", marks=pytest.mark.case("7")),
    pytest.param("consumer", "mark:before", marks=pytest.mark.case("7b")),
    pytest.param("classic", "publish:after", marks=pytest.mark.case("7b")),
]


def lasting(seconds: float, look: Callable[[], bool] = lambda: True) -> None:
    """Let a fault last, `look`ing at the same time."""
    end = time.monotonic() + seconds
    wait_until(lambda: look() and time.monotonic() >= end, "the end of a fault", seconds + 60)


@pytest.fixture
def redis_proxy(breakable_redis: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(int(re.findall(r":(\d+)/", breakable_redis.url)[0]))
    yield proxy
    proxy.close()


def through(world: World, kafka: Proxy | None = None, state: Proxy | None = None) -> World:
    """Have the world's workers reach their servers through the proxies."""
    if kafka is not None:
        world.config["kafka"]["bootstrap_servers"] = f"127.0.0.1:{kafka.port}"
    if state is not None:
        world.config["redis"] = {"url": f"redis://127.0.0.1:{state.port}/0"}
    return world


@pytest.mark.case("8")
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_broker_that_is_killed_and_comes_back(
    make_world: MakeWorld, breakable_kafka: KafkaServer, delivery: str
) -> None:
    world = make_world(4, kafka=breakable_kafka, delivery=delivery)
    world.send(3000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    for _ in range(runs(1, 10)):
        fault = world.broken()
        breakable_kafka.kill()
        breakable_kafka.restart()
        fault.end = time.time()
        world.send(500)
        world.wait_results(500, worker)
    assert world.finish().duplicated == 0, ALIVE


@pytest.mark.case("9")
def test_a_broker_that_freezes(make_world: MakeWorld, breakable_kafka: KafkaServer) -> None:
    world = make_world(4, kafka=breakable_kafka)
    world.send(3000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    fault = world.broken()
    breakable_kafka.suspend()
    lasting(2 * SECONDS, lambda: worker.runs)
    breakable_kafka.resume()
    fault.end = time.time()
    world.wait_results(500, worker)
    assert world.finish().duplicated == 0, ALIVE


@pytest.mark.case("10")
@pytest.mark.parametrize("what", runs(["cut", "deaf"], ["cut", "delay", "deaf", "mute"]))
def test_a_bad_network_to_kafka(
    make_world: MakeWorld, breakable_kafka: KafkaServer, kafka_proxy: Proxy, what: str
) -> None:
    world = through(make_world(4, kafka=breakable_kafka), kafka=kafka_proxy)
    world.config["kafka"]["properties"] |= {"socket.timeout.ms": "3000"}
    world.send(3000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    for _ in range(runs(1, 10)):
        fault = world.broken()
        break_(kafka_proxy, what)
        lasting(SECONDS, lambda: worker.runs)
        mend(kafka_proxy)
        fault.end = time.time()
        world.wait_results(300, worker)
    assert world.finish().duplicated == 0, ALIVE


def break_(proxy: Proxy, what: str) -> None:
    if what == "cut":
        proxy.cut()
    elif what == "delay":
        proxy.faults.delay = 0.3
    elif what == "deaf":
        proxy.faults.swallow_requests = True
    else:
        proxy.faults.swallow_replies = True


def mend(proxy: Proxy) -> None:
    proxy.faults.delay, proxy.faults.swallow_requests, proxy.faults.swallow_replies = 0.0, False, False
    # What was swallowed is missing from the middle of a stream: nobody can go on with that.
    proxy.reset()
    if not proxy.listens:
        proxy.listen()


@pytest.mark.case("11")
@pytest.mark.parametrize(
    ("delivery", "request_key"), [("at_least_once", OFFSET_COMMIT), ("exactly_once", END_TXN)]
)
def test_a_lost_reply_to_a_commit(
    make_world: MakeWorld, breakable_kafka: KafkaServer, kafka_proxy: Proxy, delivery: str, request_key: int
) -> None:
    world = through(make_world(2, kafka=breakable_kafka, delivery=delivery), kafka=kafka_proxy)
    world.send(2000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    fault = world.broken()
    with kafka_proxy.losing_replies_to(kafka_request(request_key)):
        wait_until(lambda: kafka_proxy.faults.lost >= runs(2, 20), "lost replies")
    fault.end = time.time()
    world.finish()


@pytest.mark.case("14")
def test_redis_killed_and_empty_again(make_world: MakeWorld, breakable_redis: RedisServer) -> None:
    world = make_world(4, redis_url=breakable_redis.url)
    world.send(3000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    for _ in range(runs(1, 10)):
        fault = world.broken()
        breakable_redis.kill()
        lasting(1, lambda: worker.runs)
        breakable_redis.restart()
        fault.marks, fault.end = {}, time.time()
        world.send(500)
        world.wait_results(500, worker)
    world.finish()


@pytest.mark.case("15")
@pytest.mark.parametrize("what", runs(["frozen"], ["frozen", "slow"]))
def test_redis_away_is_waited_for_and_polling_goes_on(
    make_world: MakeWorld, breakable_redis: RedisServer, redis_proxy: Proxy, what: str
) -> None:
    world = through(make_world(4, redis_url=breakable_redis.url), state=redis_proxy)
    # An engine that stopped polling would be out of the group before the fault is over. One step may wait
    # twice for Redis, 2 s each time.
    world.config["kafka"]["consumer"] |= {"max.poll.interval.ms": "6000"}
    world.send(2000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    fault = world.broken()
    if what == "frozen":
        breakable_redis.suspend()
        lasting(SECONDS + 5, lambda: worker.runs)
        breakable_redis.resume()
    else:
        redis_proxy.faults.delay = 0.2
        lasting(SECONDS, lambda: worker.runs)
        redis_proxy.faults.delay = 0.0
    fault.end = time.time()
    assert world.finish().duplicated == 0
    assert not worker.said("MAXPOLL") and not worker.said("partitions lost")


@pytest.mark.case("16")
def test_redis_out_of_memory_and_read_only(make_world: MakeWorld, breakable_redis: RedisServer) -> None:
    world = make_world(4, redis_url=breakable_redis.url)
    world.send(2000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    with redis.Redis.from_url(breakable_redis.url) as client:
        for setting, broken, whole in (("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")):
            fault = world.broken()
            client.config_set(setting, broken)
            lasting(1.5, lambda: worker.runs)
            client.config_set(setting, whole)
            fault.end = time.time()
            world.wait_results(300, worker)
        assert world.finish().duplicated == 0
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        refused = world.start()
        assert refused.wait() == 3 and refused.said("noeviction")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "0")


@pytest.mark.case("17")
def test_a_lost_reply_to_a_claim(
    make_world: MakeWorld, breakable_redis: RedisServer, redis_proxy: Proxy
) -> None:
    world = through(make_world(4, redis_url=breakable_redis.url), state=redis_proxy)
    world.config["window"] = {"max_records": 64}
    world.send(2000)
    worker = world.start(plan=BUSY)
    world.wait_results(100, worker)
    fault = world.broken()
    with redis_proxy.losing_replies_to(re.compile(b"EVALSHA")):
        wait_until(lambda: redis_proxy.faults.lost >= runs(3, 30), "lost replies")
    fault.end = time.time()
    assert world.finish().duplicated == 0
    assert worker.process.returncode == 0


@pytest.mark.parametrize(
    ("protocol", "point"),
    [
        pytest.param("consumer", "infer:inside", marks=pytest.mark.case("7")),
        pytest.param("classic", "claim:before", marks=pytest.mark.case("7b")),
        *runs([], HANGS),
    ],
)
def test_what_hangs_for_ever_ends_and_is_replaced(make_world: MakeWorld, protocol: str, point: str) -> None:
    world = make_world(2)
    if protocol == "consumer":
        world.config["kafka"]["consumer"] = {"group.protocol": "consumer"}
    world.config |= {"window": {"max_records": 32}, "limits": {"hang_s": 2, "drain_s": 1, "revoke_s": 1}}
    world.send(500)
    hanging = world.start(plan=Plan(point=point, time=4, hang=True))
    assert world.crashed(hanging) == 6, hanging.log.read_text("utf-8")
    assert hanging.said("Thread 0x") and hanging.said("tests/faults/worker.py"), "a dump of its threads"
    world.start()
    world.finish()
