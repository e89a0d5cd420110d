"""What others could read or use on the way to Kafka and Redis, as far as the configuration tells."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from streamer.settings import Config


def exposures(config: Config) -> Iterator[tuple[str, str, str]]:
    """Subject, what is open, and the way out. What stays on this machine is not told."""
    kafka = config.kafka
    protocol = str(kafka.properties.get("security.protocol", "PLAINTEXT")).upper()
    if not protocol.endswith("SSL") and beyond_loopback(kafka.bootstrap_servers.split(",")):
        yield "broker", f"{protocol}: texts travel in clear", "SASL_SSL or SSL: docs/security.md"
    urls = [urlsplit(url) for url in config.redis.urls]
    hosts = [url.netloc.rpartition("@")[2] for url in urls]
    if not config.deduplication.enabled or urls[0].scheme == "unix" or not beyond_loopback(hosts):
        return
    if urls[0].scheme == "redis":
        yield "redis", "no TLS: ids travel in clear", "rediss://: docs/security.md"
    if not (config.redis.username or urls[0].username):
        yield "redis", "no user: streamer may do all that the default user may", "an ACL: docs/security.md"


def beyond_loopback(addresses: Iterable[str]) -> bool:
    """Whether any of these `host:port` is, or may be, another machine. A name but `localhost` may."""
    for address in addresses:
        host = urlsplit(f"//{address.strip().rpartition('://')[2]}").hostname or ""
        try:
            here = ipaddress.ip_address(host).is_loopback
        except ValueError:
            here = host == "localhost"
        if not here:
            return True
    return False
