"""A TCP proxy that cuts, delays, swallows and loses replies, on the word of a test."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

OFFSET_COMMIT, END_TXN = 8, 26  # Kafka's API keys
CHUNK = 65536


@dataclass
class Faults:
    """What happens to the bytes. Changed by the test, read by every connection's threads."""

    delay: float = 0.0  # seconds for each piece, each way
    swallow_requests: bool = False  # half-open: the peer seems to be there and hears nothing
    swallow_replies: bool = False
    lose_reply_to: re.Pattern[bytes] | None = None  # such a request is done, and its reply is lost
    lost: int = 0
    damage: bytes = b""  # these bytes of a reply change
    times: int = 1 << 30  # so often
    damaged: int = 0


class Proxy:
    """Listens on `port` and passes on to `target`, both on loopback."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.faults = Faults()
        self._target = target
        self._connections: set[socket.socket] = set()
        self._open = True
        self._listener: socket.socket | None = None
        self.port = port
        self.listen()

    @property
    def listens(self) -> bool:
        return self._listener is not None

    def listen(self) -> None:
        """Take connections again after `cut`."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._listener is not None:
            # Closing alone would leave the thread in accept(), and the port with it.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.reset()

    def reset(self) -> None:
        """Reset every connection; new ones are welcome."""
        for connection in list(self._connections):
            _reset(connection)
        self._connections.clear()

    def close(self) -> None:
        self._open = False
        self.cut()

    @contextlib.contextmanager
    def losing_replies_to(self, request: re.Pattern[bytes]) -> Iterator[None]:
        self.faults.lose_reply_to = request
        yield
        self.faults.lose_reply_to = None

    def _accept(self, listener: socket.socket) -> None:
        while self._open:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # cut
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(near)  # the server is down, and that is what its client is to see
                continue
            far.settimeout(None)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections |= {near, far}
            pair = _Pair(near, far, self.faults)
            for pump in (pair.requests, pair.replies):
                threading.Thread(target=self._run, args=(pump, near, far), daemon=True).start()

    def _run(self, pump: Callable[[], None], near: socket.socket, far: socket.socket) -> None:
        try:
            pump()
        except OSError:
            pass  # one end has gone: so does the other
        finally:
            for one in (near, far):
                self._connections.discard(one)
                _reset(one)


class _Pair:
    """One connection through the proxy."""

    def __init__(self, near: socket.socket, far: socket.socket, faults: Faults) -> None:
        self._near, self._far, self._faults = near, far, faults
        self._lose = False

    def requests(self) -> None:
        while data := self._near.recv(CHUNK):
            time.sleep(self._faults.delay)
            if self._faults.swallow_requests:
                continue
            lost = self._faults.lose_reply_to
            if lost is not None and lost.search(data):
                self._lose = True
            self._far.sendall(data)

    def replies(self) -> None:
        while data := self._far.recv(CHUNK):
            time.sleep(self._faults.delay)
            if self._lose:
                self._faults.lost += 1
                return
            if not self._faults.swallow_replies:
                self._near.sendall(self._damaged(data))

    def _damaged(self, data: bytes) -> bytes:
        faults = self._faults
        if not faults.damage or faults.damage not in data or faults.damaged >= faults.times:
            return data
        faults.damaged += 1
        return data.replace(faults.damage, bytes(len(faults.damage)))


def kafka_request(key: int) -> re.Pattern[bytes]:
    """A request of this kind by one of our clients: key, version, correlation id, length, client id."""
    return re.compile(struct.pack(">h", key) + b".{8}streamer-", re.DOTALL)


def _reset(connection: socket.socket) -> None:
    # Linger 0: a reset, not a goodbye, as when a machine or a route dies.
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
