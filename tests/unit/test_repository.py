"""What a public repository must not hold, and how long a file may be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Where packages come from is the business of whoever runs the clients. Written in parts, so that this file
# does not find itself.
_REGISTRIES = re.compile(
    r"(pypi\.|files\.python"
    r"hosted|repo1?\.maven\.|repo\.maven|registry\.np"
    r"mjs|deb\.deb"
    r"ian|static\.crates|proxy\.go"
    r"lang|--(extra-)?index-url[ =]\S*//|index-url *=)",
    re.IGNORECASE,
)
# Absolute paths that exist on one machine only.
_MACHINE_PATHS = re.compile(r"(?<![\w./-])/(work|root|home)/\w")


def tracked_files() -> list[Path]:
    """What git tracks or would add; where there is no git, every file outside hidden and cache folders."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
        )
        files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        files = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part.startswith(".") or part == "__pycache__" for part in path.relative_to(ROOT).parts[:-1]
            )
        ]
    return [path for path in files if path.is_file()]


def texts() -> list[tuple[str, str]]:
    """Every text file's path and content; binary files are left out."""
    found = []
    for path in tracked_files():
        raw = path.read_bytes()
        if b"\0" not in raw[:8192]:
            found.append((str(path.relative_to(ROOT)), raw.decode("utf-8", "replace")))
    return found


def hits(pattern: re.Pattern[str]) -> list[str]:
    """`path:line: what matched` for every line that the pattern finds."""
    return [
        f"{name}:{number}: {match.group()}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := pattern.search(line))
    ]


def test_no_file_names_a_package_registry() -> None:
    assert hits(_REGISTRIES) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert hits(_MACHINE_PATHS) == []


@pytest.mark.parametrize(
    "line",
    [
        "index-url" + " = anything",
        "cd /work" + "/main",
        "https://files.python" + "hosted.org/x",
        "see /ro" + "ot/x",
    ],
)
def test_the_patterns_find_what_they_are_for(line: str) -> None:
    assert _REGISTRIES.search(line) or _MACHINE_PATHS.search(line)


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in (ROOT / "streamer").rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}
