"""What every contender is given and judged by: a topic full of texts, and a topic of results.

The clock is the broker's: results topics stamp records on append, so a contender is measured from outside,
by the same rule whatever it is written in.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

PARTITIONS = 4
SKIPPED_SHARE = 0.1  # of the results at the start: connecting, joining and warming up are not throughput


@dataclass(frozen=True)
class Topics:
    input: str
    output: str
    dead_letters: str


@dataclass(frozen=True)
class Measured:
    """What an independent reader finds in the results topic."""

    results: int
    distinct: int
    dead_letters: int
    per_second: float


def read_texts(path: Path, limit: int) -> Iterator[str]:
    """`limit` texts of a CSV file (plain or gzip, column `text`), from the start again when it ends."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    texts = [row["text"] for row in csv.DictReader(content.decode().splitlines(keepends=True))]
    return itertools.islice(itertools.cycle(texts), limit)


def create_topics(bootstrap_servers: str, *, names: Topics | None = None) -> Topics:
    """Fresh topics of 4 partitions; `names` keeps the ones that it names and that exist."""
    tag = uuid.uuid4().hex[:8]
    topics = names or Topics(f"texts.in.{tag}", f"sentiment.out.{tag}", f"texts.dlq.{tag}")
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    new = [
        NewTopic(name, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        for name in (topics.input, topics.output, topics.dead_letters)
    ]
    for name, future in admin.create_topics(new).items():
        try:
            future.result()
        except Exception as error:
            if getattr(error.args[0], "code", int)() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise SystemExit(f"cannot create {name}: {error}") from error
    return topics


def publish(bootstrap_servers: str, topic: str, texts: Iterator[str]) -> int:
    """Write the texts with ids of their own, spread evenly over the partitions."""
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000}
    )
    encode = msgspec.json.Encoder().encode
    count = 0
    for count, text in enumerate(texts, 1):
        producer.produce(topic, encode({"id": f"review-{count}", "text": text}), partition=count % PARTITIONS)
        if count % 1000 == 0:
            producer.poll(0)
    if left := producer.flush(120):
        raise SystemExit(f"{left} of {count} texts could not be published to {topic}")
    return count


def measure(bootstrap_servers: str, topics: Topics) -> Measured:
    """Read both result topics to their ends; texts/s between the first tenth and the last result."""
    stamps: list[int] = []
    ids: set[bytes] = set()
    for value, stamp in _read(bootstrap_servers, topics.output):
        stamps.append(stamp)
        ids.add(value.partition(b",")[0])
    dead = sum(1 for _ in _read(bootstrap_servers, topics.dead_letters))
    stamps.sort()
    start = int(len(stamps) * SKIPPED_SHARE)
    seconds = (stamps[-1] - stamps[start]) / 1000 if stamps else 0.0
    rate = (len(stamps) - start) / seconds if seconds else float("nan")
    return Measured(len(stamps), len(ids), dead, rate)


def _read(bootstrap_servers: str, topic: str) -> Iterator[tuple[bytes, int]]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"measure-{time.time_ns()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    open_partitions = PARTITIONS
    while open_partitions:
        for message in consumer.consume(5000, 0.5):
            error = message.error()
            if error is None:
                yield message.value() or b"", message.timestamp()[1]
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions -= 1
            else:
                raise SystemExit(f"{topic}: {error}")
    consumer.close()
