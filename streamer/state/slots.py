"""Which keys share a slot of a Redis Cluster, and one script called in many slots at once.

A script may touch keys of one slot only. One hash tag for all claims would put them on one node; none would
make a call of each id. So the claims of a group lie in 64 slots, chosen by the hash of the id and evenly
spread over the 16,384: a window becomes 64 small calls, written to all nodes before the first answer is read.
On one node they take half as much again as a single call does (2.3 ms for 512 ids, against 1.5). A Redis that
is no cluster has the same keys, and takes a window in one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.commands.core import Script
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import NoScriptError, ResponseError

from streamer.state.connection import FAILURES, Client, away

SLOTS = 64

Call = tuple[list[bytes], list[bytes | int]]  # keys of one slot, arguments


def hash_tag(prefix: str, number: int | None = None) -> str:
    """`{prefix}` or `{prefix:number}`. Braces of a group's name would end it too early."""
    inner = prefix.rstrip(":").replace("{", "(").replace("}", ")")
    return f"{{{inner}}}" if number is None else f"{{{inner}:{number}}}"


def spread(prefix: str) -> list[bytes]:
    """64 hash tags, each with the lowest number that puts it into its own 64th of the slots."""
    found: dict[int, bytes] = {}
    for number in count():
        tag = hash_tag(prefix, number).encode()
        found.setdefault(key_slot(tag) * SLOTS // REDIS_CLUSTER_HASH_SLOTS, tag)
        if len(found) == SLOTS:
            return [found[part] for part in range(SLOTS)]
    raise AssertionError("unreachable")


def call(client: Client, script: Script, calls: Sequence[Call]) -> list[Any]:
    """The answer of the script to each call, or a TransientError in its place."""
    if isinstance(client, RedisCluster):
        return _call_cluster(client, script, calls)
    answers: list[Any] = []
    for keys, args in calls:
        try:
            answers.append(script(keys=keys, args=args))
        except FAILURES as error:
            return answers + [away(error)] * (len(calls) - len(answers))
    return answers


def _call_cluster(client: RedisCluster, script: Script, calls: Sequence[Call]) -> list[Any]:
    """One round trip, and a second to a node that did not have the script.

    Not by redis-py's own pipeline: it sends nothing at all when one node is away, and asks a node that has
    frozen once more for each call, with a time-out for each.
    """
    answers: list[Any] = [None] * len(calls)
    _ask(client, script, calls, range(len(calls)), answers)
    if unknown := [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
        for node in {client.get_node_from_key(calls[number][0][0]) for number in unknown}:
            with suppress(*FAILURES):  # its calls are about to fail for the same reason
                client.get_redis_connection(node).script_load(script.script)
        _ask(client, script, calls, unknown, answers)
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    if failed:
        _look_again(client)
    return [away(answer) if isinstance(answer, Exception) else answer for answer in answers]


def _ask(
    client: RedisCluster, script: Script, calls: Sequence[Call], numbers: Iterable[int], answers: list[Any]
) -> None:
    """Put the answers to these calls, or what went wrong, into `answers`."""
    by_node: dict[ClusterNode, list[int]] = {}
    for number in numbers:
        try:
            by_node.setdefault(client.get_node_from_key(calls[number][0][0]), []).append(number)
        except FAILURES as error:  # nobody has the slot
            answers[number] = error
    asked: list[tuple[redis.ConnectionPool, redis.Connection, list[int]]] = []
    for node, its in by_node.items():
        pool = client.get_redis_connection(node).connection_pool
        connection = None
        try:
            connection = pool.get_connection()
            evaluate = [
                ("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in (calls[n] for n in its)
            ]
            connection.send_packed_command(connection.pack_commands(evaluate))
        except FAILURES as error:
            for number in its:
                answers[number] = error
            if connection is not None:
                connection.disconnect()
                pool.release(connection)
        else:
            asked.append((pool, connection, its))
    for pool, connection, its in asked:
        for number, answer in zip(its, _read(connection, len(its)), strict=True):
            answers[number] = answer
        pool.release(connection)


def _read(connection: redis.Connection, count: int) -> list[Any]:
    """So many answers; once the connection has failed, its error for all that are left.

    It may have failed with answers under way, which whoever asks next would take for their own: it is closed.
    """
    answers: list[Any] = []
    for left in range(count, 0, -1):
        try:
            answers.append(connection.read_response())
        except ResponseError as error:
            answers.append(error)
        except FAILURES as error:
            connection.disconnect()
            return answers + [error] * left
    return answers


def _look_again(client: RedisCluster) -> None:
    """Slots may have moved, or a replica may have taken over: the next call is to find it."""
    with suppress(*FAILURES):  # all of it is away then, and the answers say so
        client.nodes_manager.initialize()
