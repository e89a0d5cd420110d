"""A client of one Redis, of what Sentinels watch, or of a cluster; and what is to be known of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from streamer.errors import ConfigurationError, StartupError, TransientError

T = TypeVar("T")
Client = redis.Redis | RedisCluster

OPERATION_TIMEOUT = 2.0  # seconds; retrying is the engine's business, which polls Kafka meanwhile
OLDEST = (6, 2)
# What a client raises; the second is no RedisError.
FAILURES = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)


class Member(NamedTuple):
    """A node that holds data: host:port, whether it takes writes, and a client of it alone."""

    name: str
    primary: bool
    client: redis.Redis


def connect(
    urls: Sequence[str],
    *,
    username: str | None = None,
    password: str | None = None,
    cluster: bool = False,
    sentinel: str | None = None,
    sentinel_password: str | None = None,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> Client:
    """A client with short time-outs and no retries of its own.

    `urls` is the address of the Redis, of some nodes of the cluster, or of the Sentinels that know where the
    master `sentinel` is. A cluster is asked for its nodes at once: TransientError when none answers. Raises
    ConfigurationError for an address or a file that cannot be read.
    """
    for name, path in {"ca": ca, "certificate": certificate, "key": key}.items():
        if path is not None and not Path(path).is_file():
            raise ConfigurationError(f"redis.{name}: there is no file {path}")
    places = [_parse(url) for url in urls]
    options: dict[str, Any] = {
        **places[0],
        "socket_timeout": OPERATION_TIMEOUT,
        "socket_connect_timeout": OPERATION_TIMEOUT,
        "protocol": 2,
    }
    if options.pop("connection_class", None) is SSLConnection:
        files = {"ssl_ca_certs": ca, "ssl_certfile": certificate, "ssl_keyfile": key}
        options |= {"ssl": True} | {name: path for name, path in files.items() if path is not None}
    options |= {
        name: value for name, value in (("username", username), ("password", password)) if value is not None
    }
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
        return redis.Redis(**options, retry=Retry(NoBackoff(), 0))
    hosts = [(place.get("host", "localhost"), place.get("port", 6379)) for place in places]
    for each in ("host", "port"):
        options.pop(each, None)
    if cluster:
        options.pop("db", None)  # a cluster has one, and does not like to be asked for it
        nodes = [ClusterNode(host, port) for host, port in hosts]

        def join() -> RedisCluster:
            try:
                return RedisCluster(
                    startup_nodes=nodes,
                    retry=Retry(NoBackoff(), 0),
                    require_full_coverage=False,  # a shard that is away is waited for, the others answer
                    **options,
                )
            except IndexError:  # redis-py looks for the first of the nodes that have slots
                raise redis.exceptions.RedisClusterException("no node of the cluster has slots") from None

        return transient(join)
    options["retry"] = Retry(NoBackoff(), 0)
    if sentinel is None:
        (host, port), *_ = hosts
        return redis.Redis(host=host, port=port, **options)
    # The user is Redis' own; a Sentinel has at most a password.
    own = {name: value for name, value in options.items() if name not in ("username", "password", "db")}
    watchers = Sentinel(hosts, sentinel_kwargs=own | {"password": sentinel_password}, **options)
    master: redis.Redis = watchers.master_for(sentinel)
    return master


def members(client: Client) -> Iterator[Member]:
    """The nodes that hold data now, the primaries first. May raise FAILURES."""
    if isinstance(client, RedisCluster):
        for primary, nodes in ((True, client.get_primaries()), (False, client.get_replicas())):
            for node in nodes:
                yield Member(node.name, primary, client.get_redis_connection(node))
        return
    pool = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        where = pool.connection_kwargs
        yield Member(where.get("path") or f"{where['host']}:{where['port']}", True, client)
        return
    watchers: Sentinel = pool.sentinel_manager
    host, port = watchers.discover_master(pool.service_name)
    yield Member(f"{host}:{port}", True, client)
    for host, port in watchers.discover_slaves(pool.service_name):
        yield Member(f"{host}:{port}", False, redis.Redis(host=host, port=port, **watchers.connection_kwargs))


def topology(client: Client) -> str:
    """What it is a client of, in words. May raise FAILURES."""
    found = list(members(client))
    replicas = sum(not member.primary for member in found)
    if isinstance(client, RedisCluster):
        return f"a cluster of {len(found) - replicas} primaries and {replicas} replicas"
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        watchers = f"{len(pool.sentinel_manager.sentinels)} Sentinels"
        return f"{pool.service_name} at {found[0].name} with {replicas} replicas, watched by {watchers}"
    return "a single Redis"


def transient(call: Callable[[], T]) -> T:
    """Whatever Redis refuses or fails to answer may pass: the caller waits, and nothing is committed."""
    try:
        return call()
    except FAILURES as error:
        raise away(error) from error


def away(error: Exception) -> TransientError:
    return TransientError(f"Redis: {error or type(error).__name__}")


def refusal(error: Exception) -> StartupError:
    """What to do about an error of the first calls."""
    if isinstance(error, redis.exceptions.NoPermissionError):
        return StartupError(f"Redis: {error}; security.md lists what streamer's user needs")
    if isinstance(error, redis.exceptions.MovedError):
        return StartupError("Redis is a cluster: set redis.cluster: true")
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return StartupError("Redis is a replica: set redis.url of its primary, or redis.sentinel")
    if isinstance(error, redis.exceptions.AuthenticationError):
        return StartupError(f"Redis: {error}; set redis.username and redis.password")
    if "certificate" in str(error).lower():
        return StartupError(f"Redis: {error}; see redis.ca, redis.certificate and redis.key")
    return StartupError(f"Redis: {error}; set redis.url, or deduplication.enabled: false")


def _parse(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except (ValueError, TypeError):
        # What it says quotes the address, and with it a part of a password that has a "/" or a "#" in it.
        raise ConfigurationError(
            "redis.url: not an address such as redis://host:6379/0; put a user and a password that have "
            "other characters than letters and digits into redis.username and redis.password"
        ) from None
