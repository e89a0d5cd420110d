"""A server as a child process: started, watched, killed, frozen, and never left behind."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"

# Linux kills the child when the thread that started it ends. The wrapper asks for that and becomes the
# server; a `preexec_fn` would do the same, but is not safe in a process that has threads.
_WITH_PARENT = """
import ctypes, os, signal, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL) != 0:
    sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

# Any thread of a test may restart a server, so one thread that lives as long as we do starts them all.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="server-parent")
_RUNNING: set[subprocess.Popen[bytes]] = set()


class ServerError(RuntimeError):
    """A test server cannot be started, or did not do what it was told: the message says the way out."""


class ServerProcess:
    """One command whose output goes to `log`; `start` it again after `kill` or `terminate`."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's own process id."""
        return self._alive().pid

    @property
    def running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._child is not None and self._child.poll() is None

    def start(self, ready: Callable[[], bool], timeout: float) -> None:
        """Start the process and return once `ready()` is true; past `timeout` seconds end it and raise."""
        if self.running:
            raise ServerError(f"{self.name} runs already, as process {self.pid}")
        command = self.command
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", _WITH_PARENT, str(os.getpid()), *command]
        child = self._child = _SPAWNER.submit(_spawn, command, self.log).result()
        deadline = time.monotonic() + timeout
        try:
            while not ready():
                if child.poll() is not None:
                    raise ServerError(f"{self.name} ended (exit code {child.returncode}){self._tail()}")
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.name} did not answer within {timeout:.0f} s{self._tail()}")
                time.sleep(0.02)
        except BaseException:
            self.kill()
            raise

    def terminate(self, timeout: float = 15.0) -> None:
        """End it as an operator would, with SIGTERM; one that has not gone by `timeout` is killed."""
        child = self._alive()
        child.send_signal(signal.SIGCONT)
        child.terminate()
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
        self._forget()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; nothing happens to one that has ended."""
        if self._child is not None:
            self._child.kill()
            self._forget()

    def suspend(self) -> None:
        """Freeze it with SIGSTOP: connections stay open and nothing answers."""
        self._alive().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw a frozen process."""
        self._alive().send_signal(signal.SIGCONT)

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            raise ServerError(f"{self.name} does not run{self._tail()}")
        return self._child

    def _forget(self) -> None:
        if self._child is not None:
            self._child.wait()
            _RUNNING.discard(self._child)
            self._child = None

    def _tail(self) -> str:
        if not self.log.exists():
            return ""
        last = last_words(self.log.read_text("utf-8", "replace"))
        return f"; the end of {self.log}:\n{last}" if last else f"; {self.log} is empty"


def run(command: Sequence[str], timeout: float, what: str) -> str:
    """Run a command to its end and return its output; raise `ServerError` with it when the command fails."""
    try:
        done = subprocess.run(
            command,
            check=False,  # below, with the output
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ServerError(f"{what} took longer than {timeout:.0f} s: {' '.join(command)}") from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise ServerError(
            f"{what} failed (exit code {done.returncode}): {' '.join(command)}\n{last_words(output)}"
        )
    return output


def last_words(output: str) -> str:
    """The last 20 lines, without Java's stack frames, which would bury what went wrong."""
    return "\n".join([line for line in output.splitlines() if not line.startswith("\tat ")][-20:])


def make_folder(name: str) -> Path:
    """A new folder for one server's data and log, in the cache that git ignores and `make clean` removes."""
    parent = CACHE / "servers"
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


def remove_folder(folder: Path) -> None:
    """Remove what `make_folder` made."""
    shutil.rmtree(folder)


_taken: set[int] = set()  # ports that were handed out: a server has several, and listens on none yet


def free_port() -> int:
    """A loopback port that nothing listens on, another one at each call.

    It lies below the range from which systems take the ports of outgoing connections: while a server is down,
    a client that keeps connecting to a port of that range may get hold of it, and the restart would fail.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 30_000)
        if port in _taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _taken.add(port)
            return port
    raise ServerError("no free loopback port between 15000 and 30000")


def _spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches the tests, which then stop their servers in order.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    _RUNNING.add(child)
    return child


@atexit.register
def _end_all() -> None:
    for child in _RUNNING:
        child.kill()
        child.wait()
