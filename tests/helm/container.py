"""A container of the rendered chart as a process of this machine, and the topics that it works on.

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
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import yaml
from confluent_kafka import Producer

from tests.conftest import MakeTopic
from tests.helm.render import HERE, Manifest, manifests, one, pods
from tests.integration.line import LARGE, Reader, wait_until
from tests.servers import KafkaServer
from tests.servers.process import free_port

ROOT = HERE.parents[1]
PARTITIONS = 2
WORKER = "Deployment scores-streamer"
Secrets = dict[str, dict[str, str]]


class Container:
    """A rendered pod's container as a process here. `of` is what makes the pod: its kind and name."""

    def __init__(self, folder: Path, found: list[Manifest], of: str, secrets: Secrets) -> None:
        self.found = found
        (self.spec,) = [pod for pod in pods(found) if pod["of"] == of]
        (self.container,) = self.spec["containers"]
        text = one("ConfigMap", found)["data"]["streamer.yaml"]
        self.config = yaml.safe_load(text)
        self.log = folder / f"{of}.log"
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

    def container(self, values: str, of: str = WORKER, secrets: Secrets | None = None) -> Container:
        """That of a set of values and of what this machine has for it."""
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(self.values), "utf-8")
        found = manifests(HERE / "values" / f"{values}.yaml", file)
        self._containers.append(Container(self.folder, found, of, secrets or {}))
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
