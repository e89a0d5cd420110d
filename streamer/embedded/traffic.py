"""The demo's two Kafka clients, neither of which is the worker: one publishes, one reads what came out."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamer.embedded.texts import DemoRecord
from streamer.errors import StreamerError, TransientError
from streamer.messages import read
from streamer.records import Result
from streamer.settings.transport import Topics

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

PARTITIONS = 4
TIMEOUT = 10.0  # seconds for a broker's answer

# librdkafka's own lines would run into the picture; what matters comes back as an error.
_silent = logging.getLogger("streamer.embedded.librdkafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class Place(NamedTuple):
    """Where a record lies in the input topic."""

    partition: int
    offset: int


class Publisher:
    """Writes records and remembers where each of them came to lie."""

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        from confluent_kafka import Producer

        self._topic = topic
        self._producer = Producer(
            {**client, "logger": _silent, "linger.ms": 5, "enable.idempotence": True, "acks": "all"}
        )
        self._failed: KafkaError | None = None
        self.sent = 0
        self.published: dict[Place, DemoRecord] = {}

    def publish(self, records: Sequence[DemoRecord]) -> None:
        """Hand records over. There are never so many under way that librdkafka's queue could be full."""
        for record in records:

            def delivered(error: KafkaError | None, message: Message, record: DemoRecord = record) -> None:
                if error is not None:
                    self._failed = self._failed or error
                else:
                    place = Place(message.partition() or 0, message.offset() or 0)
                    self.published[place] = record

            self._producer.produce(self._topic, record.value, record.key, on_delivery=delivered)
            self.sent += 1
        self.poll()

    def poll(self) -> None:
        self._producer.poll(0)
        if self._failed is not None:
            raise TransientError(f"a record could not be published to {self._topic}: {self._failed}")

    def close(self) -> None:
        """Forget what is not acknowledged yet."""
        self._producer.purge()
        self._producer.poll(0)


class Collector:
    """Reads results and dead letters, from where their topics ended when it was made."""

    def __init__(self, client: Mapping[str, Any], topics: Topics, group: str) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._topics = topics
        self._consumer = Consumer(
            {
                **client,
                "logger": _silent,
                "group.id": f"{group}-reader",
                "enable.auto.commit": False,
                # The end of a partition may lie behind markers of transactions, which are no messages.
                "enable.partition.eof": True,
                # Other questions to the broker wait behind a fetch that waits for records.
                "fetch.wait.max.ms": 20,
            }
        )
        self._partitions = [
            TopicPartition(topic, number)
            for topic in (topics.output, topics.dead_letters)
            for number in partitions_of(self._consumer, topic)
        ]
        for partition in self._partitions:
            partition.offset = end_of(self._consumer, partition)
        # Offsets that are our own, so it needs no group and waits for no rebalance.
        self._consumer.assign(self._partitions)
        self._next = {(p.topic, p.partition): p.offset for p in self._partitions}
        self.results: dict[Place, Result] = {}
        self.again: Counter[Place] = Counter()
        self.dead: dict[Place, str] = {}
        self.foreign = 0

    def poll(self, timeout: float) -> list[Result]:
        """Read what is there, waiting up to `timeout` seconds for the first; returns the new results."""
        first = self._consumer.poll(timeout)
        new: list[Result] = []
        messages = [first] if first is not None else []
        while messages:
            for message in messages:
                self._take(message, new)
            messages = self._consumer.consume(1000, 0)
        return new

    def forget(self) -> None:
        """Let go of what was read so far."""
        self.results.clear()
        self.again.clear()
        self.dead.clear()

    def at_end(self) -> bool:
        """Whether all has been read that the topics hold by now."""
        return all(
            self._next[partition.topic, partition.partition] >= end_of(self._consumer, partition)
            for partition in self._partitions
        )

    def close(self) -> None:
        self._consumer.close()

    def _take(self, message: Message, new: list[Result]) -> None:
        from confluent_kafka import KafkaError

        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._next[topic, partition] = offset
            elif not error.retriable():
                raise TransientError(f"cannot read the results: {error}")
            return
        self._next[topic, partition] = offset + 1
        if topic == self._topics.output:
            try:
                result = msgspec.json.decode(message.value() or b"", type=Result)
            except msgspec.MsgspecError:
                self.foreign += 1  # on a shared broker others may write to the topic too
                return
            place = Place(result.source.partition, result.source.offset)
            self.again[place] += place in self.results
            self.results[place] = result
            new.append(result)
        else:
            headers = {name: (value or b"").decode(errors="replace") for name, value in read(message).headers}
            place = Place(int(headers.get("dlq.partition", -1)), int(headers.get("dlq.offset", -1)))
            self.again[place] += place in self.dead
            self.dead[place] = headers.get("dlq.reason", "")


class Group:
    """The worker's consumer group, seen from outside."""

    def __init__(self, client: Mapping[str, Any], topic: str, group: str) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer(
            {**client, "logger": _silent, "group.id": group, "enable.auto.commit": False}
        )
        self._positions = [TopicPartition(topic, n) for n in partitions_of(self._consumer, topic)]
        for position in self._positions:
            position.offset = end_of(self._consumer, position)
        # What a real topic held before the demo is not the demo's: the group starts behind it.
        self._consumer.commit(offsets=self._positions, asynchronous=False)

    def committed(self) -> dict[int, int]:
        """By partition, the offset up to which the worker has committed."""
        positions = self._consumer.committed(self._positions, timeout=TIMEOUT)
        return {position.partition: position.offset for position in positions}

    def close(self) -> None:
        self._consumer.close()


def create_topics(client: Mapping[str, Any], topics: Topics, embedded: bool) -> list[str]:
    """Create the topics that are missing; returns their names."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient(dict(client), logger=_silent)
    names = [topics.input, topics.output, topics.dead_letters]
    if embedded:
        # The embedded broker has no call to create topics: the first mention of one does.
        for name in names:
            admin.list_topics(name, timeout=TIMEOUT)
        return names
    known = admin.list_topics(timeout=TIMEOUT).topics
    missing = [name for name in names if name not in known]
    if missing:
        futures = admin.create_topics(
            [NewTopic(name, PARTITIONS) for name in missing], request_timeout=TIMEOUT
        )
        for future in futures.values():
            future.result()
    return missing


def delete_group(client: Mapping[str, Any], group: str) -> str:
    """Remove the consumer group that the demo made on a real broker; returns why it could not."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        admin = AdminClient(dict(client), logger=_silent)
        admin.delete_consumer_groups([group], request_timeout=TIMEOUT)[group].result()
    except KafkaException as error:
        return str(error.args[0])
    return ""


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    return sorted(consumer.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions)


def end_of(consumer: Consumer, partition: TopicPartition) -> int:
    """The offset behind the last record. A partition that was just created is waited for."""
    from confluent_kafka import KafkaError, KafkaException

    not_yet = (KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=TIMEOUT)[1]
        except KafkaException as error:
            if error.args[0].code() not in not_yet or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@contextmanager
def reported(servers: str, kind: type[StreamerError]) -> Iterator[None]:
    """What librdkafka raises becomes a `kind` that says where it was."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise kind(f"Kafka at {servers}: {error.args[0].str()}") from error
