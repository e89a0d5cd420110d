"""From Kafka to Kafka: the worker as users run it, between topics of our own that are deleted afterwards.

The clock is the brokers': records of the results topic are stamped when they are appended, so nothing of the
measuring process is in a figure. An embedded broker does not stamp; there it is the time at which the worker
handed a result to its producer.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from streamer.bench.report import Latency, percentiles
from streamer.bench.turns import Incomplete, Turn
from streamer.embedded.process import ChildProcess
from streamer.errors import StartupError, TransientError
from streamer.records import Result
from streamer.settings.transport import Topics

if TYPE_CHECKING:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient

PARTITIONS = 4
SKIPPED = 0.1  # of the results at the start: they come while texts are still being published
SHORTEST = 1.0  # seconds of results that are worth a figure
PATIENCE = 120.0  # seconds without a result, of which loading the model may take a part
ANSWER = 20.0  # seconds for a broker's answer
EMBEDDED_BYTES = 4_000_000  # of a partition: what the embedded broker holds, less what a record carries


class Line:
    """A worker between topics of its own, with a user's configuration, for as long as the `with` block lasts.

    `client` is librdkafka's settings, `environment` what is to be different from the configuration.
    """

    def __init__(
        self,
        client: dict[str, Any],
        config: Path | None,
        environment: dict[str, str],
        scratch: Path,
        *,
        embedded: bool,
    ) -> None:
        from confluent_kafka.admin import AdminClient

        self._client = client
        self._config = config
        self._environment = environment
        self._log = scratch / "worker.log"
        self._embedded = embedded
        self._admin: AdminClient = AdminClient({**client, "logger": _silent()})
        self._stack = ExitStack()
        self._sent = 0

    def __enter__(self) -> Self:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

        with ExitStack() as stack:
            self._topics = stack.enter_context(self._new_topics())
            quiet = {**self._client, "logger": _silent()}
            self._producer = Producer({**quiet, "acks": "all", "queue.buffering.max.messages": 2_000_000})
            reader = {
                "group.id": "streamer-bench-reader",  # it assigns, and joins nothing
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
            self._consumer = Consumer(quiet | reader)
            stack.callback(self._consumer.close)
            output = self._topics.output
            self._consumer.assign([TopicPartition(output, n, OFFSET_BEGINNING) for n in range(PARTITIONS)])
            self._worker = stack.enter_context(self._new_worker())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def throughput(self, texts: Sequence[str]) -> Turn:
        """All texts at once. The seconds are those that they would take at the rate of the last nine tenths.

        Raises Incomplete, also when that is too short a time to measure.
        """
        if self._embedded and sum(len(text.encode()) + 40 for text in texts) > PARTITIONS * EMBEDDED_BYTES:
            raise StartupError("the embedded broker cannot hold so many texts: lower --count")
        first = self._publish(texts)
        found = self._results(len(texts), first)
        stamps = sorted(stamp for stamp, _ in found.values())
        start = int(len(stamps) * SKIPPED)
        span = (stamps[-1] - stamps[start]) / 1000
        if span < SHORTEST:
            raise Incomplete(f"all came out within {span:g} s, which is too short to measure: raise --count")
        labels = [result.label for _, result in found.values()]
        return Turn(labels, seconds=span * len(stamps) / (len(stamps) - 1 - start))

    def warm_up(self, texts: Sequence[str]) -> Turn:
        """The same, of which no time is taken."""
        found = self._results(len(texts), self._publish(texts))
        return Turn([result.label for _, result in found.values()])

    def latency(self, texts: Sequence[str], rate: float, seconds: float, full: float) -> Latency:
        """So many texts a second for so long. `full` is the rate that it can do."""
        count = max(100, int(rate * seconds))
        first = self._publish([texts[number % len(texts)] for number in range(count)], rate)
        found = self._results(count, first)
        times = [float(stamp - result.source.timestamp) for stamp, result in found.values()]
        return Latency(rate, len(times), percentiles(times), rate / full)

    @contextmanager
    def _new_topics(self) -> Iterator[Topics]:
        from confluent_kafka import KafkaException
        from confluent_kafka.cimpl import NewTopic

        tag = f"streamer-bench-{uuid.uuid4().hex[:8]}"
        topics = Topics(input=f"{tag}.in", output=f"{tag}.out", dead_letters=f"{tag}.dlq")
        names = [topics.input, topics.output, topics.dead_letters]
        if self._embedded:
            for name in names:  # to name a topic is to create it
                self._admin.list_topics(name, timeout=ANSWER)
            yield topics
            return
        stamped = {"message.timestamp.type": "LogAppendTime"}
        settings: list[dict[str, str]] = [{}, stamped, {}]
        new = [NewTopic(name, PARTITIONS, config=each) for name, each in zip(names, settings, strict=True)]
        try:
            for future in self._admin.create_topics(new, request_timeout=ANSWER).values():
                future.result()
        except KafkaException as error:
            raise StartupError(
                f"topics for the benchmark cannot be created: {error.args[0].str()}; it needs the right to "
                "create and delete topics streamer-bench-*"
            ) from None
        try:
            yield topics
        finally:
            with suppress(KafkaException):  # the worker may have been killed before it had a group
                self._admin.delete_consumer_groups([tag], request_timeout=ANSWER)[tag].result()
            for future in self._admin.delete_topics(names, request_timeout=ANSWER).values():
                future.result()

    @contextmanager
    def _new_worker(self) -> Iterator[ChildProcess]:
        topics = self._topics
        group = topics.input.removesuffix(".in")
        command = [sys.executable, "-m", "streamer", "run"]
        if self._config is not None:
            command += ["--config", str(self._config)]
        environment = {
            **os.environ,
            **self._environment,
            "STREAMER__KAFKA__GROUP_ID": group,
            "STREAMER__KAFKA__TRANSACTIONAL_ID": group,
            "STREAMER__TOPICS__INPUT": topics.input,
            "STREAMER__TOPICS__OUTPUT": topics.output,
            "STREAMER__TOPICS__DEAD_LETTERS": topics.dead_letters,
            "STREAMER__INPUT__FORMAT": "json",
            "STREAMER__INPUT__ID_FROM": "[field]",
            "STREAMER__DEDUPLICATION__TTL": "1h",  # what the benchmark leaves in Redis goes by itself
            "STREAMER__RETRY__POLICY": "wait",
            "STREAMER__OPS__PORT": "null",
            "STREAMER__LOG__LEVEL": "warning",
        }
        with ChildProcess(command, self._log, env=environment) as worker:
            yield worker

    def _publish(self, texts: Sequence[str], rate: float | None = None) -> int:
        """Evenly over the partitions, at a rate or as fast as it goes. Returns the id of the first."""
        first, producer, topic = self._sent, self._producer, self._topics.input
        started = time.monotonic()
        for number, text in enumerate(texts):
            if rate is not None:
                _serve_until(producer, started + number / rate)
            value = msgspec.json.encode({"id": first + number, "text": text})
            producer.produce(topic, value, partition=(first + number) % PARTITIONS)
            producer.poll(0)
        self._sent += len(texts)
        if left := producer.flush(ANSWER):
            raise TransientError(f"{left} of {len(texts)} texts could not be published to {topic}")
        return first

    def _results(self, count: int, first: int) -> dict[int, tuple[int, Result]]:
        """Of each text the time at which its result was appended, and the result. Raises Incomplete."""
        decode = msgspec.json.Decoder(Result).decode
        found: dict[int, tuple[int, Result]] = {}
        last = time.monotonic()
        while len(found) < count:
            for message in self._consumer.consume(1000, 0.2):
                if message.error() is not None:
                    raise TransientError(f"cannot read {self._topics.output}: {message.error()}")
                result = decode(message.value() or b"")
                if (number := int(result.id)) >= first:  # else repeated, after a rebalance
                    found.setdefault(number, (message.timestamp()[1], result))
                last = time.monotonic()
            if self._worker.exit_code is not None or time.monotonic() > last + PATIENCE:
                raise Incomplete(
                    f"{len(found)} of {count} texts came out; the worker's last lines:\n{self._worker.tail()}"
                )
        return found


def _serve_until(producer: Producer, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        producer.poll(left)


def _silent() -> Any:
    silent = logging.Logger("librdkafka")
    silent.disabled = True
    return silent
