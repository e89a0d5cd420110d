"""What the pages tell a reader to type exists, and so does what they point at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from streamer.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[str]:
    """The lines of its shell blocks, without comments, and the commands it names in running text."""
    text = page.read_text("utf-8")
    for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            yield from (
                part.strip() for part in re.split(r"&&|\|", line.partition(" #")[0].removeprefix("$ "))
            )
    yield from re.findall(r"`((?:make|python -m) [^`]+)`", text)


def words(command: str) -> list[str]:
    """As a shell would take it, without the variables that are set before it."""
    found = shlex.split(command)
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        found.pop(0)
    return found


ALL = sorted({(page.name, command) for page in PAGES for command in commands(page) if command})


def test_there_are_commands_to_check() -> None:
    names = {words(command)[0] for page, command in ALL if page == "README.md"}
    assert {"make", "streamer", "python"} <= names


@pytest.mark.parametrize("command", [c for _, c in ALL if words(c)[:1] == ["streamer"]])
def test_streamer_takes_it(command: str) -> None:
    arguments = words(command)[1:]
    _parser(arguments).parse_args(arguments)


@pytest.mark.parametrize("command", [c for _, c in ALL if words(c)[:1] == ["make"]])
def test_make_has_the_target(command: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = {word for word in words(command)[1:] if "=" not in word}
    assert asked and asked <= targets


@pytest.mark.parametrize("command", [c for _, c in ALL if words(c)[:2] == ["python", "-m"]])
def test_python_has_the_module(command: str) -> None:
    assert find_spec(words(command)[2]) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_it_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_its_example_of_a_result_is_of_the_model_that_ships() -> None:
    from streamer.backends.torch.location import SHIPPED, content_hash

    (shown,) = re.findall(r'"model": "sentiment", "revision": "(\w+)"', PAGES[0].read_text("utf-8"))
    assert shown == content_hash(SHIPPED / "sentiment")
