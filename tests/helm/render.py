"""The chart, rendered: what `helm template` makes of a set of values."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.helm.tools import helm

Manifest = dict[str, Any]
HERE = Path(__file__).parent
CHART = HERE.parents[1] / "helm" / "streamer"
VALUES = sorted((HERE / "values").glob("*.yaml"))


class Refused(Exception):
    """Helm would not render it; the message is Helm's."""


def render(*values: Path, arguments: tuple[str, ...] = (), release: str = "scores") -> str:
    """The manifests as Helm writes them. Raises Refused."""
    files = [word for path in values for word in ("--values", str(path))]
    done = subprocess.run(
        [helm(), "template", release, str(CHART), "--namespace", "texts", *files, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def manifests(*values: Path, arguments: tuple[str, ...] = ()) -> list[Manifest]:
    """The same, parsed: one dict an object. Raises Refused."""
    return [one for one in yaml.safe_load_all(render(*values, arguments=arguments)) if one]


def one(kind: str, found: list[Manifest], name: str = "scores-streamer") -> Manifest:
    """The object of that kind and name, which there must be once."""
    (only,) = [each for each in found if each["kind"] == kind and each["metadata"]["name"] == name]
    return only


def pods(found: list[Manifest]) -> list[Manifest]:
    """The specification of every pod that would come of them, with its object's kind and name as `of`."""
    specs = []
    for each in found:
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if each["kind"] != "Pod":
            spec = spec.get("template", {}).get("spec") if isinstance(spec, dict) else None
        if spec and "containers" in spec:
            specs.append(spec | {"of": f"{each['kind']} {each['metadata']['name']}"})
    return specs
