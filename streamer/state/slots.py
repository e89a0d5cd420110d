"""Which keys share a slot of a Redis Cluster.

A script may touch keys of one slot only. One hash tag for all claims would put them on one node; none would
make a call of each id. So the claims of a group lie in 64 slots, chosen by the hash of the id and evenly
spread over the 16,384: a window becomes 64 small calls, written to all nodes before the first answer is read.
A Redis that is no cluster has all of them under one tag, and takes a window in one call.
"""

from __future__ import annotations

from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

SLOTS = 64


def hash_tag(prefix: str, number: int | None = None) -> str:
    """`{prefix}` or `{prefix:number}`. Braces of a group's name would end it too early."""
    inner = prefix.rstrip(":").replace("{", "(").replace("}", ")")
    return f"{{{inner}}}" if number is None else f"{{{inner}:{number}}}"


def spread(prefix: str) -> list[str]:
    """64 hash tags, each with the lowest number that puts it into its own 64th of the slots."""
    found: dict[int, str] = {}
    for number in count():
        tag = hash_tag(prefix, number)
        found.setdefault(key_slot(tag.encode()) * SLOTS // REDIS_CLUSTER_HASH_SLOTS, tag)
        if len(found) == SLOTS:
            return [found[part] for part in range(SLOTS)]
    raise AssertionError("unreachable")
