"""A Kubernetes of one's own: etcd, the API server, controllers and the scheduler are real, the nodes are not.

kwok says of each pod that it runs, and of a job's that it has done its work; nothing is executed. Everything
listens on loopback, lives in one folder, and ends with the tests.
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.helm.tools import tools
from tests.servers.certificates import Certificates
from tests.servers.process import ServerProcess, free_port, make_folder, remove_folder, run

TOKEN = "operator-of-the-tests"
NODES = 4
START = 90.0  # seconds, for each server: a loaded machine is slow


class Cluster:
    """Starts on creation, with four nodes of eight GPUs; `stop` ends it and removes its folder."""

    def __init__(self) -> None:
        self.folder = make_folder("kubernetes")
        self.kubeconfig = self.folder / "kubeconfig"
        self._servers = ExitStack()
        try:
            self._start()
        except BaseException:
            self._servers.close()
            raise

    def stop(self) -> None:
        """End it for good."""
        self._servers.close()
        remove_folder(self.folder)

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        """What it prints. Raises ServerError with it where it fails."""
        command = [str(tools() / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(command, timeout, f"kubectl {' '.join(arguments[:3])}")

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object, or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return found

    @cached_property
    def kinds(self) -> list[str]:
        """Everything that a namespace may hold, but events, and a twin over which kubectl complains."""
        listed = self.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
        return [kind for kind in listed if not kind.startswith("events") and kind != "endpoints"]

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Create or change them."""
        file = self.folder / "manifests.yaml"
        file.write_text(yaml.safe_dump_all(manifests), "utf-8")
        self.kubectl("apply", "--filename", str(file))

    def _start(self) -> None:
        folder, port, etcd, peer = self.folder, free_port(), free_port(), free_port()
        certificates = Certificates(folder)
        certificate, key = certificates.issue("kubernetes")
        self._configure(certificates.ca, f"https://127.0.0.1:{port}")
        (folder / "tokens.csv").write_text(f"{TOKEN},operator,operator,system:masters\n", "utf-8")
        client, peers = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self._run(
            "etcd",
            lambda: _port_answers(f"{client}/health"),
            data_dir=folder / "etcd",
            listen_client_urls=client,
            advertise_client_urls=client,
            listen_peer_urls=peers,
            initial_advertise_peer_urls=peers,
            initial_cluster=f"default={peers}",
            unsafe_no_fsync="true",
        )
        self._run(
            "kube-apiserver",
            lambda: self._succeeds("get", "--raw", "/readyz"),
            etcd_servers=client,
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            secure_port=port,
            tls_cert_file=certificate,
            tls_private_key_file=key,
            token_auth_file=folder / "tokens.csv",
            authorization_mode="RBAC",
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=certificate,
            service_account_signing_key_file=key,
            service_cluster_ip_range="10.0.0.0/24",
            endpoint_reconciler_type="none",
        )
        self._run(
            "kube-controller-manager",
            lambda: self._succeeds("get", "serviceaccount", "default"),
            kubeconfig=self.kubeconfig,
            service_account_private_key_file=key,
            root_ca_file=certificates.ca,
            use_service_account_credentials="true",
            leader_elect="false",
            secure_port=0,
            concurrent_gc_syncs=2,
            # No kubelet renews these nodes. By default all of them are lost after 50 s, and kwok finds them
            # again at once; but a pod that started in between stays unready for good.
            node_monitor_grace_period="24h",
        )
        self._run(
            "kube-scheduler", lambda: True, kubeconfig=self.kubeconfig, leader_elect="false", secure_port=0
        )
        self._define_others()
        self._add_nodes()

    def _run(self, name: str, ready: Callable[[], bool], **flags: object) -> None:
        words = [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]
        server = ServerProcess(name, [str(tools() / name), *words], self.folder / f"{name}.log")
        server.start(ready, START)
        self._servers.callback(server.kill)

    def _succeeds(self, *arguments: str) -> bool:
        command = [str(tools() / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0

    def _configure(self, authority: Path, address: str) -> None:
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "operator"}}],
            "clusters": [
                {"name": "tests", "cluster": {"server": address, "certificate-authority": str(authority)}}
            ],
            "users": [{"name": "operator", "user": {"token": TOKEN}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(kubeconfig), "utf-8")

    def _define_others(self) -> None:
        """What KEDA's and the Prometheus operator's objects look like: then the API server takes them."""
        files = [str(path) for path in sorted((tools() / "definitions").glob("*.yaml")) if "_" in path.name]
        names = [word for path in files for word in ("--filename", path)]
        self.kubectl("create", *names)
        self.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all")

    def _add_nodes(self) -> None:
        files = [path for path in sorted((tools() / "definitions").glob("*.yaml")) if "_" not in path.name]
        stages = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in files}
        # kwok ends the pods of jobs. What is not to be started again ends: the pod of `helm test` too.
        (of_jobs,) = (
            each
            for each in stages["pod-complete"]["spec"]["selector"]["matchExpressions"]
            if "Job" in each.get("values", [])
        )
        of_jobs.update(key=".spec.restartPolicy", values=["Never"])
        config = self.folder / "kwok.yaml"
        config.write_text(yaml.safe_dump_all(stages.values()), "utf-8")
        self._run(
            "kwok",
            lambda: True,
            kubeconfig=self.kubeconfig,
            config=config,
            manage_nodes_with_annotation_selector="kwok.x-k8s.io/node=fake",
            server_address="127.0.0.1:0",
        )
        room = {"cpu": "32", "memory": "128Gi", "pods": "110", "nvidia.com/gpu": "8"}
        self.apply(*(_node(number, room) for number in range(NODES)))
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all")


def _node(number: int, room: dict[str, str]) -> dict[str, Any]:
    name = f"node-{number}"
    labels = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{number % 2}",
        "nvidia.com/gpu.present": "true",
    }
    annotations = {"kwok.x-k8s.io/node": "fake"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "status": {"capacity": room, "allocatable": room},
    }


def _port_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
