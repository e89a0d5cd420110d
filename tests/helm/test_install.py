"""The chart in a real Kubernetes: installed, changed, rolled back, scaled, removed, and nothing left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.cluster import Cluster
from tests.helm.render import CHART, HERE, VALUES, manifests
from tests.helm.tools import helm
from tests.servers import ServerError
from tests.servers.process import run

pytestmark = pytest.mark.timeout(300)
SETS = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
WORKER = "app.kubernetes.io/component=worker"


class Release:
    """A namespace of its own, under the restricted Pod Security Standard, with a release `scores` in it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
        metadata = {"name": namespace, "labels": labels}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        wait_for(lambda: {"serviceaccount/default", "configmap/kube-root-ca.crt"} <= self.objects())
        self.empty = self.objects()

    def helm(self, *arguments: str) -> str:
        """Run Helm in the namespace. What fails says how its pods were, and what the cluster told of them."""
        where = ["--kubeconfig", str(self.cluster.kubeconfig), "--namespace", self.namespace]
        try:
            return run([helm(), *arguments, *where], 200, f"helm {arguments[0]}")
        except ServerError as error:
            error.add_note(
                self.cluster.kubectl("get", "pods,persistentvolumeclaims", *where[2:], "--output=wide")
            )
            error.add_note(self.cluster.kubectl("events", *where[2:]))
            raise

    def install(self, *arguments: str) -> None:
        """Install the chart, and wait for its pods."""
        self.helm("install", "scores", str(CHART), "--wait", "--timeout", "120s", *arguments)

    def upgrade(self, *arguments: str) -> None:
        """Change the release, and wait for its pods."""
        self.helm("upgrade", "scores", str(CHART), "--wait", "--timeout", "120s", *arguments)

    def objects(self) -> set[str]:
        """Everything in the namespace but events, as kind/name."""
        found = self.cluster.get(",".join(self.cluster.kinds), "--namespace", self.namespace)
        return {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in found["items"]}

    def pods(self, selector: str = WORKER) -> list[dict[str, Any]]:
        """Its pods, those that are going left out."""
        found = self.cluster.get("pods", "--namespace", self.namespace, "--selector", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def uids(self) -> set[str]:
        """Of its workers' pods: one that is made anew has another."""
        return {pod["metadata"]["uid"] for pod in self.pods()}

    def get(self, kind: str, name: str = "scores-streamer") -> dict[str, Any]:
        """One of its objects."""
        return self.cluster.get(kind, name, "--namespace", self.namespace)

    def config(self) -> dict[str, Any]:
        """What the workers' ConfigMap says."""
        found: dict[str, Any] = yaml.safe_load(self.get("configmap")["data"]["streamer.yaml"])
        return found


def wait_for(done: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s"
        time.sleep(0.2)


@pytest.fixture
def release(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Release]:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    made = Release(cluster, name[:60].strip("-"))
    yield made
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")


def test_the_life_of_a_release(release: Release) -> None:
    """A changed configuration rolls every pod, a roll-back brings the old one, a scale rolls none."""
    settings = ["--set", "replicas=2,topics.create=true,replay.kind=CronJob"]
    release.install(*settings)
    first = release.uids()
    assert len(first) == 2
    assert {pod["status"]["phase"] for pod in release.pods()} == {"Running"}
    assert release.get("cronjob", "scores-streamer-replay")["spec"]["suspend"] is True

    release.upgrade("--reuse-values", "--set", "config.batching.max_texts=32")
    assert release.config()["batching"] == {"max_texts": 32}
    wait_for(lambda: len(release.uids()) == 2)
    second = release.uids()
    assert not first & second

    release.helm("rollback", "scores", "1", "--wait", "--timeout", "120s")
    assert "batching" not in release.config()
    wait_for(lambda: len(release.uids()) == 2)
    third = release.uids()
    assert not second & third

    release.upgrade("--reuse-values", "--set", "replicas=4")
    wait_for(lambda: len(release.uids()) == 4)
    assert third < release.uids()
    release.cluster.kubectl(
        "scale", "deployment/scores-streamer", "--replicas=1", "--namespace", release.namespace
    )
    wait_for(lambda: len(release.uids()) == 1)

    assert "scores-streamer-check" in release.helm("test", "scores", "--timeout", "60s")
    release.helm("uninstall", "scores", "--wait", "--timeout", "120s")
    wait_for(lambda: release.objects() == release.empty)


@SETS
def test_every_set_is_taken_whole_and_leaves_nothing(release: Release, values: Path) -> None:
    """By a real API server with KEDA's and the Prometheus operator's definitions; and the pods run."""
    given = yaml.safe_load(values.read_text("utf-8"))
    release.cluster.apply(*surroundings(release.namespace))
    before = release.objects()
    release.install("--values", str(values))
    rendered = manifests(values)
    kept = {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for each in rendered
        if "helm.sh/hook" not in each["metadata"].get("annotations", {})
    }
    assert kept <= release.objects()
    least = given.get("autoscaling", {}).get("minReplicas", 1) or 1
    wait_for(lambda: len(release.pods()) == given.get("replicas", least))
    wait_for(lambda: all(pod["status"].get("phase") == "Running" for pod in release.pods()))
    release.helm("uninstall", "scores", "--wait", "--timeout", "120s")
    wait_for(lambda: release.objects() == before)


def test_workers_of_a_stateful_set_keep_their_names(release: Release) -> None:
    """So they keep their transactional ids, and with ${env:POD_NAME} their membership of the group."""
    release.install("--values", str(HERE / "values" / "exactly-once.yaml"))
    names = {f"scores-streamer-{number}" for number in range(3)}
    assert {pod["metadata"]["name"] for pod in release.pods()} == names
    uids = release.uids()
    release.upgrade("--reuse-values", "--set", "config.batching.max_texts=32")
    wait_for(lambda: {pod["metadata"]["name"] for pod in release.pods()} == names)
    assert not uids & release.uids()


def test_workers_with_gpus_spread_over_nodes_and_zones(release: Release) -> None:
    release.cluster.apply(*surroundings(release.namespace))
    release.install("--values", str(HERE / "values" / "gpu.yaml"))
    nodes = Counter(pod["spec"]["nodeName"] for pod in release.pods())
    assert sum(nodes.values()) == 4
    assert Counter(int(name[-1]) % 2 for name in nodes.elements()) == {0: 2, 1: 2}


def test_a_pod_that_asks_for_more_is_refused(release: Release) -> None:
    """That the standard is enforced, so that what was installed kept it."""
    settings = "securityContext.allowPrivilegeEscalation=true"
    with pytest.raises(ServerError):
        release.helm("install", "scores", str(CHART), "--wait", "--timeout", "10s", "--set", settings)
    assert release.pods() == []


def surroundings(namespace: str) -> Iterator[dict[str, Any]]:
    """What the sets of values name and others bring: a runtime, an account, volumes."""
    metadata = {"name": "nvidia"}
    yield {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata, "handler": "nvidia"}
    yield {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "scores", "namespace": namespace},
    }
    for claim in ("models", "hub"):
        room = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"{claim}-{namespace}",
        }
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": room["volumeName"]},
            "spec": {
                "accessModes": room["accessModes"],
                "capacity": {"storage": "1Gi"},
                "claimRef": {"name": claim, "namespace": namespace},
                "hostPath": {"path": "/nowhere"},
            },
        }
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**room, "resources": {"requests": {"storage": "1Gi"}}},
        }
