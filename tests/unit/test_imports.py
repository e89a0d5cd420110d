"""The layers of the design: who may import whom, and what importing the core must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "streamer"
PLUG_INS = ("sources", "sinks", "backends", "state", "tasks")
HEAVY = ("torch", "transformers", "redis", "confluent_kafka", "opentelemetry", "pynvml", "openvino", "nncf")
# What plug-ins may know of the rest: nouns, errors, the protocols that they meet, and each other's folder.
SHARED = {"records", "errors", "protocols", "backoff", "delays", "metrics", "messages", "statistics"}
MAY_IMPORT = {
    "sources": SHARED,
    "sinks": SHARED,
    "state": SHARED,
    "backends": SHARED | {"tasks"},
    "tasks": SHARED,
}
# The core: what the line is made of. It knows no plug-in, no configuration and no command line.
CORE = (
    *("engine", "claims", "verdicts", "worker", "codec", "window", "planner", "ledger", "sizing", "backoff"),
    *("climb", "metrics", "observer", "protocols", "records", "errors", "limits", "outbox", "suspects"),
    *("recovery", "delays", "occupancy"),
)


def imports(path: Path) -> Iterator[str]:
    """The absolute names of all that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path: Path) -> set[str]:
    """The parts of streamer that a file imports: `streamer.a.b` is `a`."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("streamer.")}


def files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize(
    "module", ["streamer.engine", "streamer.app", "streamer.codec", "streamer.cli", "streamer.config"]
)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_no_plug_in(module: str) -> None:
    path = PACKAGE / f"{module}.py"
    assert own(path) <= set(CORE)
    assert not {found.split(".")[0] for found in imports(path)} & set(HEAVY)


@pytest.mark.parametrize("path", [path for folder in PLUG_INS for path in files(folder)], ids=name)
def test_plug_ins_know_only_the_nouns(path: Path) -> None:
    folder = path.relative_to(PACKAGE).parts[0]
    assert own(path) <= MAY_IMPORT[folder] | {folder}


def test_every_plug_in_folder_and_core_file_exists() -> None:
    assert all(files(folder) for folder in PLUG_INS)
    assert all((PACKAGE / f"{module}.py").exists() for module in CORE)


def test_only_app_names_concrete_classes() -> None:
    """Elsewhere nothing of a plug-in is imported; the demo and the commands go through `app`."""
    outside = [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in (*PLUG_INS, "app.py")
    ]
    guilty = {
        name(path): found for path in outside if (found := own(path) & {"sources", "sinks", "backends"})
    }
    assert guilty == {}


def test_only_app_asks_which_backend_it_is() -> None:
    guilty = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "app.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute | ast.Name):
                word = node.left.attr if isinstance(node.left, ast.Attribute) else node.left.id
                if word == "backend" and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                    guilty.append(f"{name(path)}:{node.lineno}")
            if isinstance(node, ast.Match) and ast.unparse(node.subject).split(".")[-1] == "backend":
                guilty.append(f"{name(path)}:{node.lineno}")
    assert guilty == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name)
def test_files_are_one_thing(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 300
