"""docker-compose.yml as Compose reads it: by its own loader, against the specification's schema."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helm.tools import go

ROOT = Path(__file__).resolve().parents[2]
Load = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Load files; built anew each time, for Go keeps what has not changed."""
    program = tmp_path_factory.mktemp("compose") / "config"
    subprocess.run(
        [*go(Path(__file__).parent / "compose"), "build", "-o", program, "."], check=True, timeout=110
    )

    def run(*files: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *files], capture_output=True, text=True, timeout=30, check=False)

    return run


def services(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)["services"]
    return found


def test_compose_understands_it(load: Load) -> None:
    found = services(load(ROOT / "docker-compose.yml"))
    assert set(found) == {"kafka", "redis", "topics", "streamer", "publisher", "prometheus", "grafana"}
    assert found["streamer"]["build"]["target"] == "cpu"
    assert found["streamer"]["image"] == "streamer:0.1.0-cpu"
    assert [argument.split()[0] for argument in found["publisher"]["command"]] == ["python"], (
        "one shell command"
    )


def test_a_gpu_is_asked_for_on_top_of_it(load: Load) -> None:
    found = services(load(ROOT / "docker-compose.yml", ROOT / "docker-compose.cuda.yml"))
    (device,) = found["streamer"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]


def test_it_would_say_what_is_wrong(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text("services: {a: {image: b, depends_onn: [c]}}", "utf-8")
    assert "depends_onn" in load(file).stderr
