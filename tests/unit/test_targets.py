"""Workers of one machine say where they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.errors import StartupError
from streamer.targets import announced

ROOT = Path(__file__).resolve().parents[2]
OTHER = """
import sys, signal
from pathlib import Path
from streamer.targets import announced
with announced(Path(sys.argv[1]), "127.0.0.1", 2, "other") as path:
    print(path, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize(
    ("host", "target"),
    [("127.0.0.1", "127.0.0.1:80"), ("0.0.0.0", "127.0.0.1:80"), ("::", "[::1]:80"), ("a.b", "a.b:80")],
)
def test_the_file_is_there_for_as_long_as_the_worker(tmp_path: Path, host: str, target: str) -> None:
    with announced(tmp_path / "new", host, 80, "worker-1") as path:
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        assert json.loads(path.read_bytes()) == [{"targets": [target], "labels": {"instance": "worker-1"}}]
    assert not path.exists()


def test_the_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    paths = [Path(other.stdout.readline().strip()) for other in others if other.stdout]
    dead, living = others
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    assert all(path.exists() for path in paths), "nobody was there to remove it"
    with announced(tmp_path, "127.0.0.1", 1, "new"):
        assert [path.exists() for path in paths] == [False, True]
    living.kill()
    for other in others:
        other.communicate()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StartupError, match=r"ops\.targets: .*file"),
        announced(tmp_path / "file", "a", 1, "b"),
    ):
        pass
