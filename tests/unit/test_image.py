"""The Dockerfile, as far as it can be told without an engine that builds it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from streamer.config import load

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    answer = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_image_is_pinned_by_version() -> None:
    images = [value for value in instructions("ARG") if "_IMAGE=" in value]
    assert len(images) == 2
    assert [image for image in images if not re.search(r":\d+\.\d+\.\d+", image)] == []
    stages = {line.split(" AS ")[1] for line in instructions("FROM")}
    bases = {line.split(" AS ")[0] for line in instructions("FROM")}
    assert bases - stages == {"${PYTHON_IMAGE}", "${UV_IMAGE}", "scratch"}


def test_uv_is_the_one_of_the_makefile() -> None:
    pinned = re.search(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert pinned and f"UV_IMAGE=ghcr.io/astral-sh/uv:{pinned[1]}" in instructions("ARG")


def test_every_package_is_pinned_and_so_is_what_builds_ours() -> None:
    installs = [line for line in DOCKERFILE.splitlines() if "uv pip install" in line]
    assert len(installs) == 4
    for line in installs:
        assert (
            "--build-constraints" if "--no-deps" in line else "--constraints"
        ) + " constraints.txt" in line
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    assert [each for each in needed if f"\n{re.split('[<>=]', each)[0]}==" not in pins] == []


def test_it_runs_as_a_numbered_user() -> None:
    assert instructions("USER") == ["10001:10001"]


def test_what_is_copied_reaches_the_build() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert "*" in ignore
    assert copied == allowed, "the build's context is what is copied, and nothing else"
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_its_configuration_can_be_reached_from_outside() -> None:
    file = ROOT / "config/container.yaml"
    config = load(file, {})
    assert instructions("EXPOSE") == [str(config.ops.port)]
    assert config.ops.host == "0.0.0.0"
    assert yaml.safe_load(file.read_text("utf-8"))["log"] == {"format": "json"}
