"""Chart and program agree: a container's command, run here with its ConfigMap and variables, scores texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Position
from confluent_kafka.admin import AdminClient

from streamer.delays import topics_of
from streamer.settings.running import Retry
from tests.conftest import MakeTopic
from tests.helm.container import PARTITIONS, Container, Room
from tests.helm.render import HERE, manifests, one
from tests.integration.line import Reader, wait_until
from tests.servers import KafkaServer, add_user, allow
from tests.servers.certificates import Certificates
from tests.servers.process import free_port
from tests.servers.redis import start_node

pytestmark = pytest.mark.timeout(300)
MakeRoom = Callable[[KafkaServer], Room]


@pytest.fixture
def make_room(redis_url: str, make_topic: MakeTopic, tmp_path: Path) -> Iterator[MakeRoom]:
    rooms: list[Room] = []

    def make(server: KafkaServer) -> Room:
        rooms.append(Room(tmp_path, server, redis_url, make_topic))
        return rooms[-1]

    yield make
    for room in rooms:
        room.close()


def score(room: Room, container: Container) -> None:
    """Texts, while every probe says yes."""
    room.publish(["这本书非常好，推荐购买。", "Terrible. The worst hotel we ever had, dirty and loud."] * 20)
    container.start()
    container.start_up()
    for probe in ("liveness", "readiness"):
        wait_until(lambda probe=probe: container.probe(probe), f"the {probe} probe")  # type: ignore[misc]
    labels = room.results(40)
    assert {labels[str(number)] for number in range(0, 40, 2)} == {"positive"}
    assert {labels[str(number)] for number in range(1, 40, 2)} == {"negative"}


def test_defaults_score_texts_with_the_shipped_model(kafka: KafkaServer, make_room: MakeRoom) -> None:
    room = make_room(kafka)
    container = room.container("cpu")
    score(room, container)
    metric = one("HorizontalPodAutoscaler", manifests(HERE / "values" / "hpa.yaml"))
    name = metric["spec"]["metrics"][0]["pods"]["metric"]["name"]
    address = f"http://127.0.0.1:{room.port}/metrics"
    wait_until(lambda: f"\n{name}{{" in (container.get(address) or ""), f"{name}, which an autoscaler reads")
    assert container.terminate() == 0, container.log.read_text("utf-8")


def test_what_is_for_a_gpu_but_the_gpu(kafka: KafkaServer, make_room: MakeRoom) -> None:
    """The same texts in bf16, on a device that every machine has."""
    room = make_room(kafka)
    room.values["env"] = [{"name": "STREAMER__MODEL__DEVICE", "value": "cpu"}]
    container = room.container("gpu")
    assert container.config["model"] == {"device": "cuda", "precision": "bf16"}
    score(room, container)
    assert 'precision="bf16"' in (container.get(f"http://127.0.0.1:{room.port}/metrics") or "")
    assert container.terminate() == 0, container.log.read_text("utf-8")


def test_the_lag_that_keda_reads_is_that_of_the_workers(kafka: KafkaServer, make_room: MakeRoom) -> None:
    """A trigger for another group or topic would count a lag that nobody works off."""
    room = make_room(kafka)
    del room.values["topics"]  # the set's own: more partitions, for more workers
    container = room.container("keda")
    (trigger,) = one("ScaledObject", container.found)["spec"]["triggers"]
    score(room, container)
    assert container.terminate() == 0, container.log.read_text("utf-8")
    asked = trigger["metadata"]
    asking = Consumer({"bootstrap.servers": asked["bootstrapServers"], "group.id": asked["consumerGroup"]})
    positions = [Position(asked["topic"], partition) for partition in range(PARTITIONS)]
    assert [at.offset for at in asking.committed(positions, timeout=30)] == [20, 20]
    asking.close()


def test_what_helm_test_runs_finds_everything(kafka: KafkaServer, make_room: MakeRoom) -> None:
    container = make_room(kafka).container("cpu", of="Pod scores-streamer-check")
    assert container.start().wait(60) == 0, container.log.read_text("utf-8")


def test_what_runs_beside_the_workers(kafka: KafkaServer, make_room: MakeRoom) -> None:
    """The job that makes topics, then the process that brings delayed records back, and a replay."""
    room = make_room(kafka)
    room.values["topics"]["replication"] = 1
    room.values["config"]["model"] = {"backend": "fake"}
    job = room.container("model-init", of="Job scores-streamer-topics")
    assert job.start().wait(60) == 0, job.log.read_text("utf-8")
    retry = room.container("model-init", of="Deployment scores-streamer-retry")
    retry.start()
    retry.start_up()
    for probe in ("liveness", "readiness"):
        wait_until(lambda probe=probe: retry.probe(probe), f"the {probe} probe")  # type: ignore[misc]
    level, *_ = topics_of(room.topics["retry"], Retry().delays)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(level, b'{"text": "due"}', headers={"retry.due": b"0", "retry.partition": b"1"})
    assert producer.flush(30) == 0
    reader = Reader({"bootstrap.servers": kafka.bootstrap_servers}, room.topics["input"], PARTITIONS)
    wait_until(lambda: reader.read() == 1 and room.lives(), "the record that was due")
    assert retry.terminate() == 0, retry.log.read_text("utf-8")
    replay = room.container("model-init", of="CronJob scores-streamer-replay")
    assert replay.start().wait(60) == 0, replay.log.read_text("utf-8")


def test_exactly_once_the_pods_name_is_the_transactional_id(kafka: KafkaServer, make_room: MakeRoom) -> None:
    """And its name in the group, so that the one that comes after a crash goes on where that one was."""
    room = make_room(kafka)
    room.values["config"]["model"] = {"backend": "fake"}
    room.values["replicas"] = 1
    first = room.container("exactly-once", of="StatefulSet scores-streamer")
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


def test_tls_and_a_password_from_a_secret(guarded_kafka: KafkaServer, make_room: MakeRoom) -> None:
    room = make_room(guarded_kafka)
    user, servers = "scores", guarded_kafka.bootstrap_servers
    add_user(servers, user, "hunter2")
    allow_work(room, servers, user)
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
    container = room.container("tls-sasl", secrets=known)
    assert container.config["kafka"]["properties"]["security.protocol"] == "SASL_SSL"
    assert "hunter2" not in str(container.config)
    room.publish(["text"] * 100)
    container.start()
    room.results(100)
    assert container.terminate() == 0, container.log.read_text("utf-8")


def test_secrets_of_a_vault_as_a_variable_and_as_files(
    guarded_kafka: KafkaServer, make_room: MakeRoom, tmp_path: Path
) -> None:
    """A certificate for Kafka, a password for Redis behind TLS; the ConfigMap holds neither."""
    authority = Certificates(tmp_path / "redis")
    certificate, key = authority.issue("redis")
    port = free_port()
    store = start_node(
        tls_port=str(port),
        tls_cert_file=str(certificate),
        tls_key_file=str(key),
        tls_auth_clients="no",
        user="scores on >hunter2 ~* +@all",
    )
    try:
        room = make_room(guarded_kafka)
        user, servers, doors = "vault", guarded_kafka.bootstrap_servers, guarded_kafka.doors
        allow_work(room, servers, user)
        secrets = tmp_path / "vault-kafka"
        secrets.mkdir()
        for name, file in zip(("tls.crt", "tls.key"), doors.certificates.issue(user), strict=True):
            (secrets / name).write_bytes(file.read_bytes())
        room.values["config"]["kafka"] |= {
            "bootstrap_servers": doors.mtls,
            "properties": {
                "ssl.ca.location": str(doors.certificates.ca),
                "ssl.key.pem": f"${{file:{secrets}/tls.key}}",
                "ssl.certificate.pem": f"${{file:{secrets}/tls.crt}}",
            },
        }
        url = f"rediss://scores:${{env:REDIS_PASSWORD}}@127.0.0.1:{port}/0"
        room.values["config"]["redis"] = {"url": url, "ca": str(authority.ca)}
        room.values["secrets"] = {"files": [{"existingSecret": "vault-kafka", "mountPath": str(secrets)}]}
        known = {"vault-redis": {"REDIS_PASSWORD": "hunter2"}}
        container = room.container("external-secret", secrets=known)
        assert container.config["kafka"]["properties"]["security.protocol"] == "SSL"
        assert "hunter2" not in str(container.config) and "PRIVATE KEY" not in str(container.config)
        score(room, container)
        assert container.terminate() == 0, container.log.read_text("utf-8")
    finally:
        store.stop()


def allow_work(room: Room, servers: str, user: str) -> None:
    """What a worker needs of a broker."""
    for topic in room.topics.values():
        for operation in ("READ", "WRITE", "DESCRIBE"):
            allow(servers, user, operation, "TOPIC", topic)
    allow(servers, user, "READ", "GROUP", room.group)


def transactional_ids(kafka: KafkaServer) -> set[str]:
    """Those that the broker knows: the keys of its topic of transactions, behind a version and a length."""
    name, broker = "__transaction_state", {"bootstrap.servers": kafka.bootstrap_servers}
    partitions = AdminClient({**broker}).list_topics(name, timeout=30).topics[name].partitions
    messages = Reader(broker, name, len(partitions)).all()
    return {(message.key() or b"")[4:].decode() for message in messages}
