"""Chart and program agree: the container's command, run here with its ConfigMap and variables, scores texts.

What a kubelet would do is done by hand: environment and files of made-up Secrets, the ConfigMap as a file,
probes, and SIGTERM with the grace period.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tests.conftest import MakeTopic
from tests.helm.render import HERE, manifests, one
from tests.integration.line import LARGE, Reader, wait_until
from tests.servers import KafkaServer, add_user, allow
from tests.servers.process import free_port

ROOT = HERE.parents[1]
PARTITIONS = 2
pytestmark = pytest.mark.timeout(300)
Secrets = dict[str, dict[str, str]]


class Container:
    """The container of a rendered pod, as a process of this machine."""

    def __init__(self, folder: Path, found: list[dict[str, Any]], kind: str, secrets: Secrets) -> None:
        self.found = found
        self.spec = one(kind, found)["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        text = one("ConfigMap", found)["data"]["streamer.yaml"]
        self.config = yaml.safe_load(text)
        self.log = folder / "log"
        (folder / "streamer.yaml").write_text(text, "utf-8")
        self._folder, self._secrets = folder, secrets
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Run it."""
        (config,) = [mount for mount in self.container["volumeMounts"] if mount["name"] == "config"]
        words = [word.replace(config["mountPath"], str(self._folder)) for word in self.container["args"]]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamer", *words],  # the image's entry point is `streamer`
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def _environment(self) -> dict[str, str]:
        environment = {
            name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
        }
        for source in self.container.get("envFrom", []):
            environment |= self._secrets[source["secretRef"]["name"]]
        given = {"metadata.name": "scores-streamer-0", "limits.cpu": "2"}
        for variable in self.container["env"]:
            source = variable.get("valueFrom", {})
            field = source.get("fieldRef", {}).get("fieldPath") or source.get("resourceFieldRef", {}).get(
                "resource"
            )
            environment[variable["name"]] = given[field] if field else variable["value"]
        return environment | {"STREAMER__OPS__HOST": "127.0.0.1"}  # the tests' rule: loopback only

    def probe(self, name: str) -> bool:
        """What the kubelet would make of a probe. Raises when the process has ended."""
        assert self.process is not None and self.process.poll() is None, self.log.read_text("utf-8")
        request = self.container[f"{name}Probe"]["httpGet"]
        (port,) = [
            each["containerPort"] for each in self.container["ports"] if each["name"] == request["port"]
        ]
        return self.get(f"http://127.0.0.1:{port}{request['path']}") is not None

    def start_up(self) -> None:
        """Wait for the startup probe as long as a kubelet would: a model may take its time."""
        probe = self.container["startupProbe"]
        deadline = monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while not self.probe("startup"):
            assert monotonic() < deadline, self.log.read_text("utf-8")
            sleep(0.1)

    def get(self, url: str) -> str | None:
        """The body of a good answer."""
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                body: str = answer.read().decode()
                return body
        except urllib.error.HTTPError:
            return None
        except (urllib.error.URLError, ConnectionError):
            return None  # not yet

    def terminate(self) -> int:
        """SIGTERM, and what it has to do within the grace period."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(self.spec["terminationGracePeriodSeconds"])

    def close(self) -> None:
        """Leave no process behind."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Room:
    """Topics and values for one container, and what comes out of it."""

    def __init__(self, folder: Path, kafka: KafkaServer, redis_url: str, make_topic: MakeTopic) -> None:
        self.folder, self.kafka = folder, kafka
        self.topics = {
            "input": make_topic("texts.in", PARTITIONS, LARGE, kafka),
            "output": make_topic("sentiment.out", PARTITIONS, None, kafka),
            "dead_letters": make_topic("texts.dlq", PARTITIONS, LARGE, kafka),
            "retry": make_topic("texts.retry", PARTITIONS, None, kafka),
        }
        self.group = f"group-{self.topics['input']}"
        self.port = free_port()
        self.values: dict[str, Any] = {
            "topics": {"partitions": PARTITIONS},
            "config": {
                "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "group_id": self.group},
                "topics": self.topics,
                "redis": {"url": redis_url},
                "ops": {"port": self.port},
            },
        }
        self._containers: list[Container] = []

    def container(self, values: str, secrets: Secrets | None = None, kind: str = "Deployment") -> Container:
        """The worker's, of a set of values and of what this machine has for it."""
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(self.values), "utf-8")
        found = manifests(HERE / "values" / f"{values}.yaml", file)
        self._containers.append(Container(self.folder, found, kind, secrets or {}))
        return self._containers[-1]

    def publish(self, texts: list[str], first: int = 0) -> None:
        """Texts, with their number as id."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for number, text in enumerate(texts, first):
            value = msgspec.json.encode({"id": str(number), "text": text})
            producer.produce(self.topics["input"], value, partition=number % PARTITIONS)
        assert producer.flush(30) == 0

    def results(self, count: int) -> dict[str, str]:
        """Label by id, once there are so many results; there must be no more."""
        broker = {"bootstrap.servers": self.kafka.bootstrap_servers}
        reader = Reader(broker, self.topics["output"], PARTITIONS)
        wait_until(lambda: reader.read() >= count and self.lives(), f"{count} results")
        found = [msgspec.json.decode(message.value() or b"") for message in reader.all()]
        assert len(found) == count
        return {each["id"]: each["label"] for each in found}

    def lives(self) -> bool:
        """True; raises with the log of a container that has failed."""
        for each in self._containers:
            assert each.process is None or each.process.poll() in (None, 0), each.log.read_text("utf-8")
        return True

    def close(self) -> None:
        for each in self._containers:
            each.close()


@pytest.fixture
def make_room(
    redis_url: str, make_topic: MakeTopic, tmp_path: Path
) -> Iterator[Callable[[KafkaServer], Room]]:
    rooms: list[Room] = []

    def make(server: KafkaServer) -> Room:
        rooms.append(Room(tmp_path, server, redis_url, make_topic))
        return rooms[-1]

    yield make
    for room in rooms:
        room.close()


def test_defaults_score_texts_with_the_shipped_model(
    kafka: KafkaServer, make_room: Callable[[KafkaServer], Room]
) -> None:
    """Through all probes, and out by SIGTERM within the grace period."""
    room = make_room(kafka)
    container = room.container("cpu")
    room.publish(["这本书非常好，推荐购买。", "Terrible. The worst hotel we ever had, dirty and loud."] * 20)
    container.start()
    container.start_up()
    for probe in ("liveness", "readiness"):
        wait_until(lambda probe=probe: container.probe(probe), f"the {probe} probe")  # type: ignore[misc]
    labels = room.results(40)
    assert {labels[str(number)] for number in range(0, 40, 2)} == {"positive"}
    assert {labels[str(number)] for number in range(1, 40, 2)} == {"negative"}
    metric = one("HorizontalPodAutoscaler", manifests(HERE / "values" / "hpa.yaml"))
    name = metric["spec"]["metrics"][0]["pods"]["metric"]["name"]
    address = f"http://127.0.0.1:{room.port}/metrics"
    wait_until(lambda: f"\n{name}{{" in (container.get(address) or ""), f"{name}, which an autoscaler reads")
    assert container.terminate() == 0, container.log.read_text("utf-8")


def test_what_helm_test_runs_finds_everything(
    kafka: KafkaServer, make_room: Callable[[KafkaServer], Room]
) -> None:
    room = make_room(kafka)
    container = room.container("cpu")
    check = one("Pod", container.found, "scores-streamer-check")["spec"]["containers"][0]
    container.container = check
    assert container.start().wait(60) == 0, container.log.read_text("utf-8")


def test_exactly_once_the_pods_name_is_the_transactional_id(
    kafka: KafkaServer, make_room: Callable[[KafkaServer], Room]
) -> None:
    """And its name in the group, so that the one that comes after a crash goes on where that one was."""
    room = make_room(kafka)
    room.values["config"]["model"] = {"backend": "fake"}
    room.values["replicas"] = 1
    first = room.container("exactly-once", kind="StatefulSet")
    room.publish(["text"] * 200)
    first.start()
    room.results(200)
    assert f"{room.group}.scores-streamer-0" in transactional_ids(kafka)
    first.close()
    first.process = None
    room.publish(["text"] * 200, first=200)
    first.start()
    room.results(400)
    assert first.terminate() == 0, first.log.read_text("utf-8")


def test_tls_and_a_password_from_a_secret(
    guarded_kafka: KafkaServer, make_room: Callable[[KafkaServer], Room]
) -> None:
    room = make_room(guarded_kafka)
    user, servers = "scores", guarded_kafka.bootstrap_servers
    add_user(servers, user, "hunter2")
    for topic in room.topics.values():
        for operation in ("READ", "WRITE", "DESCRIBE"):
            allow(servers, user, operation, "TOPIC", topic)
    allow(servers, user, "READ", "GROUP", room.group)
    secrets = room.folder / "kafka-ca"
    secrets.mkdir()
    (secrets / "ca.crt").write_bytes(guarded_kafka.doors.certificates.ca.read_bytes())
    room.values["config"]["kafka"] |= {
        "bootstrap_servers": guarded_kafka.doors.scram,
        "properties": {"ssl.ca.location": str(secrets / "ca.crt")},
    }
    room.values["config"]["model"] = {"backend": "fake"}
    room.values["secrets"] = {"files": [{"existingSecret": "kafka-ca", "mountPath": str(secrets)}]}
    known = {"kafka-user": {"KAFKA_USERNAME": user, "KAFKA_PASSWORD": "hunter2"}}
    container = room.container("tls-sasl", known)
    assert container.config["kafka"]["properties"]["security.protocol"] == "SASL_SSL"
    assert "hunter2" not in str(container.config)
    room.publish(["text"] * 100)
    container.start()
    room.results(100)
    assert container.terminate() == 0, container.log.read_text("utf-8")


def transactional_ids(kafka: KafkaServer) -> set[str]:
    """Those that the broker knows: the keys of its topic of transactions, behind a version and a length."""
    name, broker = "__transaction_state", {"bootstrap.servers": kafka.bootstrap_servers}
    partitions = AdminClient({**broker}).list_topics(name, timeout=30).topics[name].partitions
    messages = Reader(broker, name, len(partitions)).all()
    return {(message.key() or b"")[4:].decode() for message in messages}
