"""Several workers on one machine: each has a port of its own and says in a file where it is.

The file is what Prometheus' `file_sd_configs` reads. It is locked for as long as its worker lives, however it
ends, so that whoever comes next can tell the files of the dead and removes them.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from streamer.errors import StartupError

# What a worker that listens everywhere is asked under from beside it.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@contextmanager
def announced(folder: Path, host: str, port: int, instance: str) -> Iterator[Path]:
    """While it lasts, a file in `folder` says that the worker called `instance` is at host:port.

    Raises StartupError when the file cannot be written.
    """
    host = EVERYWHERE.get(host, host)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    path = folder / f"streamer-{socket.gethostname()}-{os.getpid()}.json"
    draft = path.with_suffix(".draft")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _bury_the_dead(folder)
        file = draft.open("xb")
    except OSError as error:
        raise StartupError(f"ops.targets: {error.filename}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode([{"targets": [target], "labels": {"instance": instance}}]))
        file.flush()
        draft.rename(path)  # Prometheus sees all of it or nothing
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _bury_the_dead(folder: Path) -> None:
    for path in [*folder.glob("streamer-*.json"), *folder.glob("streamer-*.draft")]:
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its worker lives
            path.unlink()
