"""What each set of values renders to, kept so that a review sees a change: cpu.yaml whole, the others as what
differs from it.

    python -m tests.helm.golden     writes tests/helm/golden
"""

from __future__ import annotations

import difflib
from pathlib import Path

import yaml

from tests.helm.render import HERE, VALUES, Manifest, manifests

FOLDER = HERE / "golden"
BASE = HERE / "values" / "cpu.yaml"


def golden(values: Path) -> str:
    """The text that is kept for a set of values."""
    found = written(values)
    if values == BASE:
        return "---\n".join(found.values())
    base = written(BASE)
    parts = [f"# -- {name}: gone\n" for name in base.keys() - found.keys()]
    for name, text in found.items():
        if name not in base:
            parts.append(f"# -- {name}: new\n{text}")
        elif text != base[name]:
            lines = difflib.unified_diff(base[name].splitlines(True), text.splitlines(True), n=1)
            changes = ["@@\n" if line.startswith("@@") else line for line in list(lines)[2:]]
            parts.append(f"# -- {name}\n{''.join(changes)}")
    return "\n".join(sorted(parts))


def written(values: Path) -> dict[str, str]:
    """Each object as YAML by `kind name`, in the order of those. Files that others own are only named."""
    found = {_name(each): _brief(each) for each in manifests(values)}
    return {name: yaml.dump(found[name], Dumper=_Dumper, sort_keys=False) for name in sorted(found)}


class _Dumper(yaml.SafeDumper):
    """Writes lines as lines."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _name(manifest: Manifest) -> str:
    """One for both kinds of a workload: then what differs between them is seen."""
    kind = {"Deployment": "Workload", "StatefulSet": "Workload"}.get(manifest["kind"], manifest["kind"])
    return f"{kind} {manifest['metadata']['name']}"


def _brief(manifest: Manifest) -> Manifest:
    if manifest["kind"] == "PrometheusRule":
        manifest["spec"]["groups"] = [group["name"] for group in manifest["spec"]["groups"]]
    if "grafana_dashboard" in manifest["metadata"]["labels"]:
        manifest["data"] = dict.fromkeys(manifest["data"], "...")
    return manifest


def file(values: Path) -> Path:
    """Where the text is kept."""
    return FOLDER / (f"{values.stem}.yaml" if values == BASE else f"{values.stem}.diff")


if __name__ == "__main__":
    for each in VALUES:
        file(each).write_text(golden(each), "utf-8")
