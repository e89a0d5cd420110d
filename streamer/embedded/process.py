"""A child process that cannot outlive us, on any POSIX system.

`python -m streamer.embedded.process GRACE COMMAND...` is a guard: it runs COMMAND for as long as its own
stdin stays open. The kernel closes that pipe when the process that holds its other end goes away, however it
goes: so Redis and the worker end even when the demo was killed with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self


class ChildProcess:
    """A command under a guard, in a session of its own; what it prints goes to `log`.

    Ctrl-C in the terminal does not reach it: whoever started it stops it, in the right order.
    """

    def __init__(
        self, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, grace: float = 10.0
    ) -> None:
        self._log = log
        self._grace = grace
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", "streamer.embedded.process", str(grace), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + N after signal N, as shells have it."""
        return self._guard.poll()

    def stop(self) -> int:
        """SIGTERM, after `grace` seconds SIGKILL; returns the exit code."""
        if self._guard.stdin is not None:
            # Nothing is ever written to it, so closing cannot fail with data left over.
            self._guard.stdin.close()
        return self._guard.wait()

    def tail(self, lines: int = 20) -> str:
        """The last lines that it printed."""
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def guard(command: Sequence[str], grace: float) -> int:
    """Run `command` until it ends or our stdin does; in the second case end it. Returns its exit code."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def end_with_stdin() -> None:
        while os.read(0, 1):
            pass
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    threading.Thread(target=end_with_stdin, name="stdin", daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard(sys.argv[2:], float(sys.argv[1])))
