"""Topics, workers as processes, and an independent reader: what the tests of the whole line are made of."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka import TopicPartition as Position

from tests.conftest import MakeTopic
from tests.servers import KafkaServer

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0
LARGE = {"max.message.bytes": "3000000"}


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + DEADLINE
    while not done():
        assert monotonic() < deadline, f"waited {DEADLINE:.0f} s for {what}"
        sleep(0.02)


class Worker:
    """`streamer run`, or another command, as a process of its own; its log goes to a file."""

    def __init__(
        self, config: Path, log: Path, *arguments: str, module: Sequence[str] = ("streamer", "run")
    ) -> None:
        self.log = log
        command = [sys.executable, "-m", *module, "--config", str(config), *arguments]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def well(self) -> bool:
        """True; raises with its log when it has failed."""
        assert self.process.poll() in (None, 0), self.log.read_text("utf-8")
        return True

    def said(self, words: str) -> bool:
        return self.well and words in self.log.read_text("utf-8")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = DEADLINE) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.log.read_text('utf-8')}") from None


class Line:
    """A line of its own: topics, group, configuration; `start` workers and read what they wrote."""

    def __init__(
        self, folder: Path, kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, partitions: int
    ) -> None:
        self._folder = folder
        self.partitions = partitions
        self.input = make_topic("texts.in", partitions, LARGE)
        self.output = make_topic("sentiment.out", partitions)
        self.dead_letters = make_topic("texts.dlq", partitions, LARGE)
        self._broker = {"bootstrap.servers": kafka.bootstrap_servers}
        self.config: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": kafka.bootstrap_servers,
                "group_id": f"group-{self.input}",
                "consumer": {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"},
            },
            "topics": {"input": self.input, "output": self.output, "dead_letters": self.dead_letters},
            "redis": {"url": redis_url},
            "model": {"backend": "fake"},
            "batching": {"max_texts": 64},
        }
        self.workers: list[Worker] = []
        self.refused: list[KafkaError] = []
        # Idempotent, or a batch that the broker takes at the second try lands behind the next one.
        self._producer = Producer(
            {**self._broker, "message.max.bytes": 4_000_000, "enable.idempotence": True}
        )

    def publish(
        self, value: bytes | None, partition: int, headers: Iterable[tuple[str, bytes | None]] = ()
    ) -> None:
        self._producer.produce(
            self.input, value, partition=partition, headers=list(headers), on_delivery=self._delivered
        )
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(DEADLINE) == 0
        assert self.refused == [], "what the broker did not take"

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused.append(error)

    def start(self, *arguments: str, module: Sequence[str] = ("streamer", "run")) -> Worker:
        number = len(self.workers)
        config = self._folder / f"worker-{number}.yaml"
        config.write_bytes(msgspec.yaml.encode(self.config))
        worker = Worker(config, self._folder / f"worker-{number}.log", *arguments, module=module)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()

    @property
    def claims(self) -> str:
        """The hash in Redis that holds the claims of this line's group, by id."""
        return f"{{streamer:{self.config['kafka']['group_id']}}}:claims"

    def reader(self, topic: str) -> Reader:
        return Reader(self._broker, topic, self.partitions)

    def committed(self) -> dict[int, int]:
        asking = Consumer({**self._broker, "group.id": self.config["kafka"]["group_id"]})
        positions = [Position(self.input, number) for number in range(self.partitions)]
        answers = {at.partition: at.offset for at in asking.committed(positions, timeout=DEADLINE)}
        asking.close()
        return answers

    def ends(self) -> dict[int, int]:
        asking = Consumer({**self._broker, "group.id": "nobody"})
        ends = {
            number: asking.get_watermark_offsets(Position(self.input, number), timeout=DEADLINE)[1]
            for number in range(self.partitions)
        }
        asking.close()
        return ends


class Reader:
    """Reads a topic from its start, as somebody who knows nothing of streamer: read_committed, no group."""

    def __init__(self, broker: dict[str, str], topic: str, partitions: int) -> None:
        self._partitions = partitions
        self._ended: set[int | None] = set()
        self._consumer = Consumer(
            {
                **broker,
                "group.id": "reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        self._consumer.assign([Position(topic, number, 0) for number in range(partitions)])
        self.messages: list[Message] = []

    def read(self) -> int:
        """Take what is there; returns how much there was so far."""
        for message in self._consumer.consume(10_000, 0.05):
            if message.error() is not None:
                self._ended.add(message.partition())
            else:
                self._ended.discard(message.partition())
                self.messages.append(message)
        return len(self.messages)

    def all(self) -> list[Message]:
        """Everything up to the end of each partition."""
        self._ended.clear()
        self._consumer.assign([Position(at.topic, at.partition, 0) for at in self._consumer.assignment()])
        self.messages = []
        wait_until(lambda: self.read() >= 0 and len(self._ended) == self._partitions, "the end of a topic")
        self._consumer.close()
        return self.messages


def review(dice: random.Random) -> str:
    """A review as people write them, in Chinese or English."""
    if dice.random() < 0.5:
        subject = dice.choice(["这本书", "房间", "前台的服务", "早餐", "这部电影", "快递", "屏幕"])
        verdict = dice.choice(["非常好", "一般", "太差了", "还不错", "让人失望", "性价比很高"])
        ending = dice.choice(["推荐购买", "下次还会再来", "不会再来了", "朋友也这么说", "就是有点贵"])
        return f"{subject}{verdict},{ending}。" * dice.randint(1, 6)
    subject = dice.choice(["The plot", "Our room", "The staff", "This phone", "The soundtrack", "Delivery"])
    verdict = dice.choice(["was a delight", "let us down", "is fine, nothing more", "exceeded all hopes"])
    ending = dice.choice(["Would buy again", "Never again", "My friends agree", "Worth the money, barely"])
    return f"{subject} {verdict}. {ending}! " * dice.randint(1, 8)
