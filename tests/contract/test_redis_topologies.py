"""What a cluster and Sentinels add to the contract of claims: a part of Redis that is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot

from streamer.errors import ConfigurationError, StartupError, TransientError
from streamer.records import Job, TopicPartition
from streamer.state.connection import connect, members, topology
from streamer.state.redis import RedisDeduplicator
from streamer.state.slots import spread
from tests.contract.jobs import claim, job, mark
from tests.contract.test_deduplicator import deduplicator, over
from tests.servers.process import free_port
from tests.servers.redis_topologies import Topology, start_cluster, start_sentinels, whole

GO_ON = None
Start = Callable[[str], Topology]


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[Topology]:
    started = start_cluster()
    yield started
    started.stop()


@pytest.fixture
def cluster(one_cluster: Topology) -> Topology:
    """A cluster to break; the next test gets it whole."""
    for node in one_cluster.nodes:
        node.recover()
    for node in one_cluster.nodes:
        with redis.Redis.from_url(node.url) as client:
            deadline = time.monotonic() + 20
            while not whole(client, len(one_cluster.nodes)):
                assert time.monotonic() < deadline, "the cluster is not whole again"
                time.sleep(0.02)
    one_cluster.flush()
    return one_cluster


@pytest.fixture
def sentinels() -> Iterator[Topology]:
    """A master, a replica and three Sentinels to break."""
    started = start_sentinels()
    yield started
    started.stop()


def eventually(claims: RedisDeduplicator, jobs: list[Job], seconds: float = 30.0) -> list[str | None]:
    """What the engine does: the same claim again until it succeeds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return claim(claims, jobs)
        except TransientError:
            assert time.monotonic() < deadline, f"no claim within {seconds:.0f} s"
            time.sleep(0.05)


def window(count: int = 300, start: int = 0) -> list[Job]:
    return [job(start + number, id=f"id-{start + number}") for number in range(count)]


# -- a cluster --------------------------------------------------------------------------------------------


def test_claims_lie_evenly_on_all_shards_and_an_id_of_any_group_finds_its_slot(
    start_redis_kind: Start,
) -> None:
    world = start_redis_kind("cluster")
    claim(over(world), window(3000))
    for node in world.nodes:
        with redis.Redis.from_url(node.url) as client:
            assert 800 < sum(int(client.hlen(key)) for key in client.scan_iter("*:claims")) < 1200
    for prefix in ("streamer:a:", "streamer:{a}:", "streamer:}{:", "streamer:\u5f88:"):
        assert sorted(key_slot(f"{tag}x".encode()) * 64 // 16_384 for tag in spread(prefix)) == list(
            range(64)
        )


def test_while_a_shard_is_away_a_window_waits_and_no_claim_is_lost(cluster: Topology) -> None:
    claims, jobs = over(cluster), window()
    cluster.nodes[1].kill()
    for _ in range(3):
        with pytest.raises(TransientError, match="Redis"):
            claim(claims, jobs)
    others = [job(5000 + number, id=one.id) for number, one in enumerate(jobs)]
    cluster.nodes[1].restart()
    assert eventually(claims, jobs) == [GO_ON] * len(jobs), "what the other shards hold is our own"
    assert claim(claims, others) == ["duplicate"] * len(jobs)
    mark(claims, {TopicPartition("texts.in", 0): len(jobs)})
    assert claim(claims, jobs) == ["redelivered"] * len(jobs)


def test_going_on_without_a_shard_risks_its_share_alone(cluster: Topology) -> None:
    claims, jobs = over(cluster, on_outage="process"), window()
    claim(claims, jobs)
    cluster.nodes[1].kill()
    again = [job(5000 + number, id=one.id) for number, one in enumerate(jobs)]
    verdicts = claim(claims, again)
    held = [one.unclaimed for one in again].count(False)
    assert verdicts.count("duplicate") == held and 150 < held < 250
    assert all((verdict is GO_ON) == one.unclaimed for one, verdict in zip(again, verdicts, strict=True))


def test_a_frozen_shard_costs_one_time_out(cluster: Topology) -> None:
    """Not one for each of its calls: the engine has Kafka to poll."""
    claims = over(cluster)
    claim(claims, window())
    cluster.nodes[1].suspend()
    started = time.monotonic()
    with pytest.raises(TransientError):
        claim(claims, window(start=1000))
    assert time.monotonic() - started < 7
    cluster.nodes[1].resume()
    assert eventually(claims, window(start=1000)) == [GO_ON] * 300


def test_a_shard_that_forgot_its_scripts_or_was_restarted_gets_them_again(cluster: Topology) -> None:
    claims = over(cluster)
    claim(claims, window())
    with redis.Redis.from_url(cluster.nodes[0].url) as client:
        client.script_flush()
    assert claim(claims, window()) == [GO_ON] * 300
    cluster.nodes[2].restart()
    assert eventually(claims, window(start=600)) == [GO_ON] * 300
    claims.give_back(window(start=600))


def test_slots_that_have_moved_are_found(cluster: Topology) -> None:
    claims = over(cluster)
    claim(claims, window())
    source, target = (redis.Redis.from_url(node.url) for node in cluster.nodes[:2])
    to = target.execute_command("CLUSTER MYID")
    moved = [slot for slot in {key_slot(tag.encode()) for tag in spread("test:claim:")} if slot < 16_384 // 3]
    for slot in moved:  # empty ones: the keys are removed first, as if they had expired
        for key in source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            source.delete(key)
        for client in (target, source):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", to)
    assert eventually(claims, window(start=1000)) == [GO_ON] * 300
    source.close()
    target.close()


def test_a_cluster_is_told_from_a_single_redis(cluster: Topology, start_redis_kind: Start) -> None:
    with pytest.raises(StartupError, match=r"redis\.cluster"):
        deduplicator(connect(cluster.urls[:1])).check()
    with pytest.raises(TransientError, match="Cluster mode is not enabled"):
        connect(start_redis_kind("redis").urls, cluster=True)
    with pytest.raises(TransientError, match="Redis"):
        connect([f"redis://127.0.0.1:{free_port()}/0"], cluster=True)
    found = connect(cluster.urls[:1], cluster=True)
    assert isinstance(found, RedisCluster)
    assert topology(found) == "a cluster of 3 primaries and 0 replicas"
    assert sorted(member.name for member in members(found)) == sorted(
        url.removeprefix("redis://").removesuffix("/0") for url in cluster.urls
    )


# -- Sentinels --------------------------------------------------------------------------------------------


def test_after_a_failover_the_new_master_is_found(sentinels: Topology) -> None:
    claims = over(sentinels)
    claim(claims, window())
    master, replica = sentinels.nodes
    with redis.Redis.from_url(master.url) as client:
        client.execute_command("WAIT", 1, 5000)  # a failover may lose what was not replicated yet
    master.kill()
    assert eventually(claims, [job(9000 + n, id=f"id-{n}") for n in range(300)]) == ["duplicate"] * 300
    assert claim(claims, window(start=600)) == [GO_ON] * 300
    with redis.Redis.from_url(replica.url) as client:
        assert client.info("replication")["role"] == "master"


def test_one_sentinel_is_enough_and_none_is_told(start_redis_kind: Start) -> None:
    sentinels = start_redis_kind("sentinel")
    urls = [f"redis://127.0.0.1:{free_port()}/0", sentinels.urls[2]]
    claims = deduplicator(connect(urls, **sentinels.options))
    claims.check()
    assert claim(claims, window()) == [GO_ON] * 300
    with pytest.raises(StartupError, match="No master found for 'other'"):
        deduplicator(connect(sentinels.urls, sentinel="other")).check()


# -- every node -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_a_node_that_evicts_is_refused_wherever_it_is(kind: str, start_redis_kind: Start) -> None:
    world = start_redis_kind(kind)
    over(world).check()
    node = world.nodes[-1]  # of the Sentinels: the replica, which may be master tomorrow
    with redis.Redis.from_url(node.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "volatile-ttl")
        name = node.url.removeprefix("redis://").removesuffix("/0")
        try:
            with pytest.raises(StartupError, match=f"{name} evicts keys .*volatile-ttl"):
                over(world).check()
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")


def test_a_user_without_the_right_to_scripts_is_told_at_the_start(start_redis_kind: Start) -> None:
    world = start_redis_kind("redis")
    with redis.Redis.from_url(world.urls[0]) as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@all", "-@scripting")
        try:
            with pytest.raises(StartupError, match=r"evalsha.*security\.md"):
                deduplicator(connect(world.urls, username="poor", password="pw")).check()
            with pytest.raises(StartupError, match=r"redis\.username and redis\.password"):
                deduplicator(connect(world.urls, username="poor", password="wrong")).check()
        finally:
            client.execute_command("ACL", "DELUSER", "poor")


def test_an_address_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(["redis://:hun/ter2@host:6379/0"])
    assert "hun" not in str(caught.value) and "redis.password" in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"redis\.ca: there is no file /nowhere"):
        connect(["rediss://host:6379/0"], ca="/nowhere")
