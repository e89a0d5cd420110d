"""The licences of all that an image holds: `python -m release.licenses` writes docs/licenses.md.

    python -m release.licenses --check      says what differs from the page, or is not allowed; a test does

The packages are the closure of streamer's own requirements and of the extras in IMAGE, as installed here.
Their licences are what their metadata says, read by pip-licenses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/licenses.md"
IMAGE = ("torch", "otel")

# Permissive, or (MPL) binding only for changed files of the package itself.
ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)
# Names that older metadata uses.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
# CUDA's libraries: to be passed on with an application that uses them. Only PyTorch's CUDA build brings them.
NVIDIA = "LicenseRef-NVIDIA-Proprietary"
# Their metadata is silent; the terms are in the package.
SILENT = {"cuda-toolkit": NVIDIA}
# The extra fp8, which the CUDA image alone has: not installed here, and it requires nothing. Its metadata is
# silent too.
CUDA_ONLY = {"torchao": "BSD-3-Clause"}


def required() -> list[Requirement]:
    """What pyproject.toml asks for, with the extras of the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in IMAGE:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """The canonical names of all that is required, and of what that requires, on this machine."""
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        found.add(name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed: make venv")
        waiting += [
            needed
            for needed in map(Requirement, lines)
            if needed.marker is None
            or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""})
        ]
    return found


def licences(names: set[str]) -> dict[str, str]:
    """Package -> licence, in SPDX's terms where they are known."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--with-system"]
    answer = subprocess.run(
        [*command, "--packages", *names], capture_output=True, text=True, check=True, timeout=120
    )
    said = {
        str(canonicalize_name(entry["Name"])): str(entry["License"]) for entry in json.loads(answer.stdout)
    }
    found = {name: SILENT.get(name) or SPDX.get(said[name], said[name]) for name in names}
    return dict(sorted((CUDA_ONLY | found).items()))


def refused(found: dict[str, str]) -> dict[str, str]:
    """What has a licence that nobody has allowed: all parts of an `AND` must be, one of a plain `OR`."""

    def allowed(expression: str) -> bool:
        if "(" in expression:  # mixed: then every licence in it must be allowed
            expression = expression.translate(str.maketrans("", "", "()")).replace(" OR ", " AND ")
        return any(all(part in ALLOWED for part in way.split(" AND ")) for way in expression.split(" OR "))

    return {name: licence for name, licence in found.items() if licence != NVIDIA and not allowed(licence)}


HEAD = """# Licences

What an image holds beside streamer itself (Apache-2.0), Python and Debian's base, and under which licence.
`python -m release.licenses` writes this page, and the tests compare it. The NVIDIA libraries and
torchao are in the CUDA image alone. `make sbom` lists the versions
in the CPU image.

| package | licence |
|---|---|
"""


def page(found: dict[str, str]) -> str:
    return HEAD + "".join(f"| {name} | {licence} |\n" for name, licence in found.items())


def main() -> int:
    found = licences(closure(required()))
    if bad := refused(found):
        print("not allowed, by release/licenses.py: " + ", ".join(f"{n} ({li})" for n, li in bad.items()))
        return 1
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(found), "utf-8")
        return 0
    listed = dict(
        line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if " | " in line
    )
    # A CPU build and another platform install less than the page lists, never more or other things.
    differing = {name: licence for name, licence in found.items() if listed.get(name) != licence}
    for name, licence in differing.items():
        print(f"docs/licenses.md: {name} is {licence}, listed as {listed.get(name, 'nothing')}")
    if differing:
        print("python -m release.licenses writes the page anew")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
