"""Scripts called now, whose answers are read later: nobody waits for a round trip.

Not by redis-py's own pipelines: they wait for their answers, and the one of a cluster sends nothing at all
when one node is away, and asks a node that has frozen once more for each call, with a time-out for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, TypeVar

import redis
from redis.cluster import RedisCluster
from redis.commands.core import Script
from redis.exceptions import NoScriptError, ResponseError, TimeoutError

from streamer.state.connection import FAILURES, OPERATION_TIMEOUT, Client, away

T = TypeVar("T")
Call = tuple[list[str], list[bytes | int | str]]  # keys of one slot, arguments


class Reply:
    """What a node says to one command: `value` once it is `there`, or the error in its place."""

    __slots__ = ("there", "value", "wire")

    def __init__(self, wire: Wire | None = None) -> None:
        self.wire = wire
        self.there = False
        self.value: Any = None

    def come(self, value: Any) -> None:
        self.value, self.there = value, True


class Wire:
    """Commands to one node, written at once, and their replies, which come in the same order.

    It has a connection of the pool while replies are due. One that fails takes all of those with it.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._connection: redis.Connection | None = None
        self._due: deque[Reply] = deque()

    def send(self, commands: Sequence[Sequence[Any]]) -> list[Reply]:
        replies = [Reply(self) for _ in commands]
        self._due += replies
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_packed_command(self._connection.pack_commands(commands))
        except FAILURES as error:
            self.fail(error)
        return replies

    def read(self, timeout: float) -> bool:
        """Read the next reply, or find out that none of those that are due will come.

        False when nothing has come after `timeout` seconds. Not to be called when nothing is due.
        """
        connection = self._connection
        assert connection is not None, "a wire that failed owes nothing"
        try:
            if not connection.can_read(timeout):
                return False
            value = connection.read_response()
        except ResponseError as error:
            value = error
        except FAILURES as error:
            self.fail(error)
            return True
        self._due.popleft().come(value)
        if not self._due:
            self._release(connection)
        return True

    def fail(self, error: Exception) -> None:
        """Give up what is due; the next command gets a new connection."""
        for reply in self._due:
            reply.come(error)
        self._due.clear()
        if self._connection is not None:
            self._connection.disconnect()
            self._release(self._connection)

    def _release(self, connection: redis.Connection) -> None:
        self._connection = None
        self._pool.release(connection)


class Wires:
    """A wire to each node that was asked for something."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._wires: dict[redis.ConnectionPool, Wire] = {}

    def call(self, script: Script, calls: Sequence[Call]) -> Answers:
        """Ask all nodes at once. Raises nothing: what went wrong is in the place of the answer."""
        return Answers(self, script, calls)

    def send(self, script: Script, calls: Sequence[Call]) -> list[Reply]:
        """The reply to each call; one to a slot that nobody has is there at once, an error."""
        replies: list[Reply] = [Reply() for _ in calls]
        by_wire: dict[Wire, list[int]] = {}
        for number, (keys, _) in enumerate(calls):
            try:
                by_wire.setdefault(self._wire(keys[0]), []).append(number)
            except FAILURES as error:
                replies[number].come(error)
        for wire, numbers in by_wire.items():
            commands = [
                ("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in (calls[n] for n in numbers)
            ]
            for number, reply in zip(numbers, wire.send(commands), strict=True):
                replies[number] = reply
        return replies

    def load(self, script: Script, calls: Iterable[Call]) -> None:
        """Bring the script to the nodes that lack it."""
        for node in {self._node(keys[0]) for keys, _ in calls}:
            with suppress(*FAILURES):  # its calls are about to fail for the same reason
                node.script_load(script.script)

    def look_again(self) -> None:
        """Slots may have moved, or a replica may have taken over: the next call is to find it."""
        if isinstance(self.client, RedisCluster):
            # All of it is away then, and the answers say so. An IndexError: its nodes know of no slots.
            with suppress(*FAILURES, IndexError):
                self.client.nodes_manager.initialize()

    def _wire(self, key: str) -> Wire:
        pool = self._node(key).connection_pool
        if (wire := self._wires.get(pool)) is None:
            wire = self._wires[pool] = Wire(pool)
        return wire

    def _node(self, key: str) -> redis.Redis:
        if not isinstance(self.client, RedisCluster):
            return self.client
        node: redis.Redis = self.client.get_redis_connection(self.client.get_node_from_key(key))
        return node


class Answers:
    """What a script says to each of some calls; all of them have one time-out together."""

    def __init__(self, wires: Wires, script: Script, calls: Sequence[Call]) -> None:
        self._wires = wires
        self._script = script
        self._calls = calls
        self._deadline = monotonic() + OPERATION_TIMEOUT
        self._replies = wires.send(script, calls)
        self._loaded = False

    def get(self, timeout: float) -> list[Any] | None:
        """An answer or a TransientError for each call; None when one is not there after `timeout` seconds."""
        until = min(monotonic() + timeout, self._deadline)
        for reply in self._replies:
            while not reply.there and reply.wire is not None:
                if reply.wire.read(max(0.0, until - monotonic())):
                    continue
                if monotonic() < self._deadline:
                    return None
                reply.wire.fail(TimeoutError(f"no answer within {OPERATION_TIMEOUT:g} s"))
        unknown = [n for n, reply in enumerate(self._replies) if isinstance(reply.value, NoScriptError)]
        if unknown and not self._loaded:
            self._loaded = True
            calls = [self._calls[number] for number in unknown]
            self._wires.load(self._script, calls)
            for number, reply in zip(unknown, self._wires.send(self._script, calls), strict=True):
                self._replies[number] = reply
            return self.get(timeout)
        if any(isinstance(reply.value, Exception) for reply in self._replies):
            self._wires.look_again()
        return [
            away(reply.value) if isinstance(reply.value, Exception) else reply.value
            for reply in self._replies
        ]

    def wait(self) -> list[Any]:
        """The answers, however long they take: that is bounded by the time-out."""
        while (answers := self.get(OPERATION_TIMEOUT)) is None:
            pass
        return answers


class Later(Generic[T]):
    """What is made of the answers, once they are there."""

    def __init__(self, answers: Answers, made: Callable[[list[Any]], T]) -> None:
        self._answers = answers
        self._made = made

    def get(self, timeout: float) -> T | None:
        answers = self._answers.get(timeout)
        return None if answers is None else self._made(answers)
