"""Streamer against a Kafka and a Redis that ask who is there, as docs/security.md says it."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from confluent_kafka import KafkaException, Producer

from streamer import cli
from streamer.state.slots import hash_tag, spread
from tests.conftest import MakeTopic
from tests.faults.worker import BUSY, Plan
from tests.integration.line import ROOT, Line
from tests.servers import KafkaServer, RedisServer, add_user, allow
from tests.servers.certificates import Certificates
from tests.servers.process import free_port
from tests.servers.redis import start_node

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
PASSWORD = "pa/ss @word:#1"  # as a generator makes them


def example(name: str) -> dict[str, Any]:
    """The YAML block of the page that begins with this name."""
    (block,) = re.findall(rf"```yaml\n# {name}\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = msgspec.yaml.decode(block)
    return found


def rights(user: str) -> Iterator[tuple[str, str, str, bool]]:
    """Operation, kind of resource, name, and whether that is a prefix, of each kafka-acls for this user."""
    for command in re.findall(r"^    kafka-acls (.*)$", PAGE, re.MULTILINE):
        words = shlex.split(command)
        options = list(itertools.pairwise(words))
        kind, name = next(
            (word, value) for word, value in options if word in ("--topic", "--group", "--transactional-id")
        )
        if ("--allow-principal", f"User:{user}") not in options:
            continue
        prefixed = ("--resource-pattern-type", "prefixed") in options
        for word, operation in options:
            if word == "--operation":
                yield operation, kind.removeprefix("--"), name, prefixed


Store = tuple[RedisServer, int, Certificates]  # its port for TLS, and who issues its certificates


class Guarded:
    """A line whose worker is a user of its own, with the files of the page in a folder."""

    def __init__(self, folder: Path, kafka: KafkaServer, store: RedisServer, tls: int, line: Line) -> None:
        self.folder, self.kafka, self.line = folder, kafka, line
        self.user = f"streamer-{line.input}"
        self.store, self.tls = store, tls
        group = line.config["kafka"]["group_id"]
        self._names = {
            "texts.in": line.input,
            "sentiment.out": line.output,
            "texts.dlq": line.dead_letters,
            "texts.retry.": f"retry-{line.input}.",
            "streamer": group,
            "streamer.": f"{group}.",
            "streamer-retry": f"{group}-retry",
            "streamer-observer": "streamer-observer",
            "streamer-dlq-replay": f"{group}-dlq-replay",
        }

    def configure(self, kafka: str, door: str, **changes: Any) -> None:
        """The page's example of this name, with this test's addresses, names and files for those in it."""
        text = msgspec.json.encode(example(kafka) | example("redis.yaml")).decode()
        here = re.sub(r"/etc/streamer|/run/secrets", str(self.folder), text)
        found = msgspec.json.decode(here)
        found["kafka"] |= {"bootstrap_servers": door, "group_id": self._names["streamer"]}
        found["kafka"]["consumer"] = self.line.config["kafka"]["consumer"]
        if "sasl.username" in found["kafka"]["properties"]:
            found["kafka"]["properties"]["sasl.username"] = self.user
        found["redis"]["url"] = f"rediss://127.0.0.1:{self.tls}/0"
        self.line.config |= {**found, **changes}

    def grant(self, role: str = "streamer", *, without: str = "") -> None:
        """What the page lists for this role, except for this resource (or operation)."""
        for operation, kind, name, prefixed in rights(role):
            if without not in (name, operation):
                allow(
                    self.kafka.bootstrap_servers,
                    self.user_of(role),
                    operation,
                    kind,
                    self._names[name],
                    prefixed=prefixed,
                )

    def user_of(self, role: str) -> str:
        """The user that stands for the page's."""
        return self.user + role.removeprefix("streamer")

    def become(self, role: str) -> None:
        """From now on the configuration is that of another user of the page, who has SCRAM alone."""
        add_user(self.kafka.bootstrap_servers, self.user_of(role), PASSWORD)
        self.line.config["kafka"]["properties"]["sasl.username"] = self.user_of(role)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything that it said."""
        config = self.folder / "command.yaml"
        config.write_bytes(msgspec.yaml.encode(self.line.config))
        done = subprocess.run(
            [sys.executable, "-m", "streamer", *arguments, "--config", str(config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert PASSWORD not in said and "Traceback" not in said
        return done.returncode, said


@pytest.fixture(scope="module")
def guarded_redis(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    """A Redis that takes TLS with certificates on a second port."""
    authority = Certificates(tmp_path_factory.mktemp("redis"))
    certificate, key = authority.issue("redis")
    port = free_port()
    server = start_node(
        tls_port=str(port),
        tls_cert_file=str(certificate),
        tls_key_file=str(key),
        tls_ca_cert_file=str(authority.ca),
        tls_auth_clients="yes",
    )
    yield server, port, authority
    server.stop()


@pytest.fixture
def guarded(
    guarded_kafka: KafkaServer,
    guarded_redis: Store,
    make_topic: MakeTopic,
    tmp_path: Path,
) -> Iterator[Guarded]:
    store, tls, authority = guarded_redis

    on_it = partial(make_topic, server=guarded_kafka)
    line = Line(tmp_path, guarded_kafka, store.url, on_it, 2)
    made = Guarded(tmp_path, guarded_kafka, store, tls, line)
    (tmp_path / "kafka-ca.pem").write_bytes(guarded_kafka.doors.certificates.ca.read_bytes())
    (tmp_path / "redis-ca.pem").write_bytes(authority.ca.read_bytes())
    for name in ("kafka-password", "redis-password"):
        (tmp_path / name).write_text(PASSWORD + "\n", "utf-8")
    ours, broker = authority.issue("streamer"), guarded_kafka.doors.certificates.issue(made.user)
    for issued, place in ((ours, "redis-streamer"), (broker, "streamer")):
        for path, ending in zip(issued, ("pem", "key"), strict=True):
            (tmp_path / f"{place}.{ending}").write_bytes(path.read_bytes())
    add_user(guarded_kafka.bootstrap_servers, made.user, PASSWORD)
    (words,) = re.findall(r"^    ACL SETUSER streamer (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    own = words.replace("{streamer:streamer", f"{{streamer:{line.config['kafka']['group_id']}")
    with redis.Redis.from_url(store.url) as client:
        rules = [f">{PASSWORD}" if word == ">..." else word for word in own.split()]
        client.execute_command("ACL", "SETUSER", "streamer", "reset", *rules)
    yield made
    line.close()


@pytest.mark.parametrize("kind", ["scram", "mtls"])
def test_the_examples_of_the_page_score_texts(guarded: Guarded, kind: str) -> None:
    """SCRAM at least once, and with a certificate exactly once; Redis by TLS and ACL."""
    delivery = {"scram": "at_least_once", "mtls": "exactly_once"}[kind]
    guarded.grant()
    guarded.configure(f"{kind}.yaml", getattr(guarded.kafka.doors, kind), delivery=delivery)
    for number in range(50):
        guarded.line.publish(b'{"id": "%d", "text": "good"}' % number, number % 2)
    guarded.line.publish(b"no JSON", 0)
    guarded.line.flush()
    worker = guarded.line.start("--exit-when-idle", "1")
    assert worker.wait() == 0, worker.log.read_text("utf-8")
    said = worker.log.read_text("utf-8")
    assert PASSWORD not in said
    for lacking in ("does not describe", "waits", "not indexed", "uthorization"):
        assert lacking not in said, said
    assert len(guarded.line.reader(guarded.line.output).all()) == 50
    assert len(guarded.line.reader(guarded.line.dead_letters).all()) == 1
    code, listed = guarded.command("dlq", "stats")
    assert code == 0 and "invalid_json" in listed and "from the index" in listed
    code, checked = guarded.command("check")
    assert code == 0 and "FAIL" not in checked, checked


def test_who_looks_after_dead_letters_may_replay_and_purge(guarded: Guarded) -> None:
    guarded.grant()
    guarded.configure("scram.yaml", guarded.kafka.doors.scram)
    guarded.line.publish(b"no JSON", 0)
    guarded.line.publish(b"no JSON either", 1)
    guarded.line.flush()
    assert guarded.line.start("--exit-when-idle", "1").wait() == 0
    guarded.become("streamer-operator")
    guarded.grant("streamer-operator", without="Delete")
    code, said = guarded.command("dlq", "replay")
    assert code == 0 and "replayed 2 of 2" in said, said
    code, said = guarded.command("dlq", "rebuild")
    assert code == 0, said
    code, said = guarded.command("dlq", "purge", "--yes")
    assert code != 0 and "uthorization" in said, said
    guarded.grant("streamer-operator")
    code, said = guarded.command("dlq", "purge", "--yes")
    assert code == 0 and "deleted 2" in said, said


def test_what_is_delayed_is_brought_back_by_its_own_user(guarded: Guarded) -> None:
    guarded.grant()
    guarded.configure("scram.yaml", guarded.kafka.doors.scram)
    base = f"retry-{guarded.line.input}"
    guarded.line.config["topics"]["retry"] = base
    guarded.line.config["retry"] = {"policy": "delay", "deadline": 0, "delays": [1]}
    plain = guarded.folder / "plain.yaml"
    operator = {"bootstrap_servers": guarded.kafka.bootstrap_servers}
    plain.write_bytes(msgspec.yaml.encode(guarded.line.config | {"kafka": operator}))
    assert cli.main(["topics", "create", "--partitions", "2", "--config", str(plain)]) == 0
    guarded.line.publish(b'{"id": "1", "text": "%s1 nice"}' % BUSY.encode(), 0)
    guarded.line.flush()
    worker = ("tests.faults.worker", msgspec.json.encode(Plan()).decode(), "run")
    for role, module in (
        ("streamer", worker),
        ("streamer-retry", ("streamer", "retry")),
        ("streamer", worker),
    ):
        guarded.become(role)
        guarded.grant(role)
        process = guarded.line.start("--exit-when-idle", "1", module=module)
        said = process.log.read_text("utf-8") if process.wait() else ""
        assert not said, said
    assert len(guarded.line.reader(f"{base}.1s").all()) == 1
    assert len(guarded.line.reader(guarded.line.output).all()) == 1


def test_a_wrong_password_is_told(guarded: Guarded) -> None:
    guarded.grant()
    guarded.configure("scram.yaml", guarded.kafka.doors.scram)
    (guarded.folder / "kafka-password").write_text("wrong", "utf-8")
    (guarded.folder / "redis-password").write_text("wrong", "utf-8")
    code, said = guarded.command("check")
    assert code == 3 and "FAIL  broker" in said and "FAIL  redis" in said, said
    assert "Authentication failed" in said and "invalid username-password pair" in said, said
    code, said = guarded.command("run")
    assert code == 3 and "Authentication failed" in said and "kafka.properties" in said, said
    (guarded.folder / "kafka-password").write_text(PASSWORD, "utf-8")
    code, said = guarded.command("run")
    assert code == 3 and "redis.username and redis.password" in said, said


def test_a_wrong_authority_is_told(guarded: Guarded, tmp_path: Path) -> None:
    guarded.grant()
    guarded.configure("mtls.yaml", guarded.kafka.doors.mtls)
    right = (guarded.folder / "redis-ca.pem").read_bytes()
    stranger = Certificates(tmp_path / "stranger").ca.read_bytes()
    (guarded.folder / "redis-ca.pem").write_bytes(stranger)
    code, said = guarded.command("run")
    assert code == 3 and "certificate verify failed" in said and "redis.ca" in said, said
    (guarded.folder / "redis-ca.pem").write_bytes(right)
    (guarded.folder / "kafka-ca.pem").write_bytes(stranger)
    code, said = guarded.command("run")
    assert code == 3 and "ssl.ca.location" in said, said


@pytest.mark.parametrize("name", ["texts.in", "sentiment.out", "texts.dlq"])
def test_a_topic_that_is_denied_is_told(guarded: Guarded, name: str) -> None:
    guarded.grant(without=name)
    guarded.configure("scram.yaml", guarded.kafka.doors.scram)
    code, said = guarded.command("run")
    denied = {"texts.in": "input", "sentiment.out": "output", "texts.dlq": "dead_letters"}[name]
    assert code == 3 and f"no topic {getattr(guarded.line, denied)}" in said and "no right to see it" in said


def test_a_neighbour_whose_name_begins_the_same_is_out_of_reach(guarded: Guarded) -> None:
    """What the page grants to the group `streamer`, it does not grant to be used on `streamer-payments`."""
    guarded.grant()
    guarded.configure("scram.yaml", guarded.kafka.doors.scram)
    group = guarded.line.config["kafka"]["group_id"]
    with redis.Redis.from_url(guarded.store.url) as operator:

        def may(key: str) -> bool:
            told = operator.execute_command("ACL", "DRYRUN", "streamer", "HSET", key, "field", "value")
            return bool(told == b"OK")

        own = f"streamer:{group}:"
        assert may(f"{hash_tag(own + 'dead:')}:letters")
        for tag in (hash_tag(own), *spread(own)):
            assert may(f"{tag}:claims"), tag
        for other in (f"{group}-payments", f"{group}s", f"{group}}}x", group[:-1]):
            assert not may(f"{hash_tag(f'streamer:{other}:')}:claims"), other
            assert not may(f"{spread(f'streamer:{other}:')[0]}:claims"), other
        assert not may(f"{{streamer:{group}-payments:0}}x")
    settings = guarded.line.config["kafka"]
    for id, refused in ((f"{group}.a", False), (f"{group}-payments.a", True)):
        producer = Producer(
            {
                "bootstrap.servers": settings["bootstrap_servers"],
                **example("scram.yaml")["kafka"]["properties"],
                "ssl.ca.location": str(guarded.folder / "kafka-ca.pem"),
                "sasl.username": guarded.user,
                "sasl.password": PASSWORD,
                "transactional.id": id,
            }
        )
        if refused:
            with pytest.raises(KafkaException, match="TRANSACTIONAL_ID_AUTHORIZATION_FAILED"):
                producer.init_transactions(30)
        else:
            producer.init_transactions(30)


def test_a_group_that_is_denied_is_told(guarded: Guarded) -> None:
    guarded.grant(without="streamer")
    guarded.configure("scram.yaml", guarded.kafka.doors.scram)
    worker = guarded.line.start()
    assert worker.wait() == 5
    assert "Group authorization failed" in worker.log.read_text("utf-8")
