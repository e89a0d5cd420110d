"""Every set of values, rendered: as it was, as Kubernetes takes it, and with no more rights than it needs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from streamer.cli import _parser
from streamer.config import load
from streamer.redaction import SECRET
from tests.helm import golden
from tests.helm.render import CHART, VALUES, Manifest, manifests, one, pods

SETS = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
OTHERS = {
    "ScaledObject",
    "PodMonitor",
    "ServiceMonitor",
    "PrometheusRule",
}  # the API server's: test_install.py
MONITORING = CHART.parents[1] / "monitoring"

found = functools.cache(manifests)


def newest_versions() -> list[str]:
    """The three newest versions of Kubernetes that the package knows."""
    major, minor, _ = kubernetes_validate.latest_version().split(".")
    return [f"{major}.{int(minor) - back}" for back in range(3)]


@SETS
def test_it_is_what_it_was(values: Path) -> None:
    assert golden.file(values).read_text("utf-8") == golden.golden(values), "python -m tests.helm.golden"


@pytest.mark.parametrize("version", newest_versions())
@SETS
def test_kubernetes_knows_it(values: Path, version: str) -> None:
    checked = 0
    for manifest in found(values):
        if manifest["kind"] not in OTHERS:
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked >= 6


def test_the_validation_finds_what_is_wrong() -> None:
    manifest = json.loads(json.dumps(one("Deployment", found(VALUES[0]))))
    manifest["spec"]["template"]["spec"]["containers"][0]["ressources"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, newest_versions()[0], strict=True)


# -- the program -------------------------------------------------------------------------------------------


@SETS
def test_the_program_knows_its_arguments_and_configuration(values: Path, tmp_path: Path) -> None:
    config = one("ConfigMap", found(values))["data"]["streamer.yaml"]
    config = re.sub(r"\$\{(env|file):[^}]*\}", "given", config)
    file = tmp_path / "streamer.yaml"
    file.write_text(config, "utf-8")
    assert load(file, {}).ops.host == "0.0.0.0"
    for pod in pods(found(values)):
        args = pod["containers"][0]["args"]
        assert _parser(args).parse_args(args).config == Path("/etc/streamer/streamer.yaml")


# -- policies ----------------------------------------------------------------------------------------------


@SETS
def test_no_container_may_do_more_than_compute(values: Path) -> None:
    for pod in pods(found(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, pod["of"]
        assert pod["securityContext"]["runAsUser"] > 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@SETS
def test_every_container_has_limits(values: Path) -> None:
    for pod in pods(found(values)):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert {"cpu", "memory"} <= limits.keys(), pod["of"]
            assert limits.get("nvidia.com/gpu") == requests.get("nvidia.com/gpu")


@SETS
def test_no_pod_has_a_token(values: Path) -> None:
    for pod in pods(found(values)):
        assert pod["automountServiceAccountToken"] is False, pod["of"]
    for account in (each for each in found(values) if each["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@SETS
def test_no_volume_is_of_the_node_and_none_is_without_bound(values: Path) -> None:
    for pod in pods(found(values)):
        for volume in pod["volumes"]:
            assert "hostPath" not in volume, pod["of"]
            assert volume.get("emptyDir", {"sizeLimit": "1"}).get("sizeLimit"), pod["of"]


@SETS
def test_the_chart_holds_no_secret(values: Path) -> None:
    assert "Secret" not in {manifest["kind"] for manifest in found(values)}
    for manifest in found(values):
        if manifest["kind"] == "ConfigMap" and "streamer.yaml" in manifest["data"]:
            kafka = yaml.safe_load(manifest["data"]["streamer.yaml"])["kafka"]
            for place in ("properties", "consumer", "producer"):
                for name, value in kafka.get(place, {}).items():
                    assert not SECRET.search(name) or value.startswith("${"), name
    for pod in pods(found(values)):
        for variable in pod["containers"][0]["env"]:
            assert "value" not in variable or not SECRET.search(variable["name"].lower()), pod["of"]


@SETS
def test_what_selects_pods_finds_them(values: Path) -> None:
    by_kind: dict[str, Callable[[Manifest], dict[str, str]]] = {
        "Service": lambda spec: dict(spec["selector"]),
        "PodDisruptionBudget": lambda spec: dict(spec["selector"]["matchLabels"]),
        "NetworkPolicy": lambda spec: dict(spec["podSelector"]["matchLabels"]),
        "PodMonitor": lambda spec: dict(spec["selector"]["matchLabels"]),
    }
    pods_of = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in found(values)
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    for each in found(values):
        name = each["metadata"]["name"]
        if name in pods_of and each["kind"] in ("Deployment", "StatefulSet"):
            assert each["spec"]["selector"]["matchLabels"].items() <= pods_of[name].items(), name
        if selector := by_kind.get(each["kind"]):
            assert selector(each["spec"]).items() <= pods_of[name].items(), f"{each['kind']} {name}"


@SETS
def test_nothing_selects_the_pods_of_others(values: Path) -> None:
    """A Deployment that took the pods of another for its own would end them."""
    of = {
        f"{each['kind']} {each['metadata']['name']}": each["spec"]
        for each in found(values)
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    for name, spec in of.items():
        wanted = spec["selector"]["matchLabels"].items()
        chosen = [
            each for each, other in of.items() if wanted <= other["template"]["metadata"]["labels"].items()
        ]
        assert chosen == [name]


@SETS
def test_what_lasts_has_probes(values: Path) -> None:
    for pod in pods(found(values)):
        (container,) = pod["containers"]
        probes = {name for name in container if name.endswith("Probe")}
        lasts = pod["of"].startswith(("Deployment", "StatefulSet"))
        assert probes == ({"startupProbe", "livenessProbe", "readinessProbe"} if lasts else set()), pod["of"]
        assert ("terminationGracePeriodSeconds" in pod) == lasts


# -- what the sets are for ---------------------------------------------------------------------------------


def test_dashboards_and_rules_are_those_of_the_repository() -> None:
    objects = found(next(path for path in VALUES if path.stem == "hpa"))
    dashboards = {
        name: json.loads(text)
        for each in objects
        if each["kind"] == "ConfigMap"
        for name, text in each["data"].items()
        if name.endswith(".json")
    }
    kept = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
    assert dashboards == {path.name: json.loads(path.read_text("utf-8")) for path in kept}
    assert len(dashboards) >= 3
    rules = [
        group
        for path in sorted((MONITORING / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    assert one("PrometheusRule", objects)["spec"]["groups"] == rules
    assert len(rules) >= 1
