"""The page of licences, and what may be on it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from release.licenses import CUDA_ONLY, NVIDIA, refused

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_is_installed_and_all_of_it_is_allowed() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "release.licenses", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    "licence", ["MIT", "Apache-2.0 OR GPL-3.0", "MPL-2.0 AND MIT", "(MIT OR Apache-2.0) AND MIT", NVIDIA]
)
def test_allowed(licence: str) -> None:
    assert refused({"it": licence}) == {}


@pytest.mark.parametrize(
    "licence", ["GPL-3.0", "MIT AND AGPL-3.0", "UNKNOWN", "MIT AND (GPL-3.0 OR MIT)", ""]
)
def test_not_allowed(licence: str) -> None:
    assert refused({"it": licence}) == {"it": licence}


def test_what_the_cuda_image_has_alone_is_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert {Requirement(line).name for line in extras["fp8"]} == set(CUDA_ONLY)
