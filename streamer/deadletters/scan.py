"""Reading the dead-letter topic between bounds taken at the start, beside every consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from streamer.errors import StartupError
from streamer.messages import read
from streamer.records import Record

if TYPE_CHECKING:
    from confluent_kafka import Consumer

TIMEOUT = 10.0  # seconds without any message or answer, after which the broker counts as away
AT_ONCE = 1000  # messages a call


class Bounds(NamedTuple):
    """Offsets of a partition: from `low`, below `high`."""

    low: int
    high: int


def bounds(consumer: Consumer, topic: str, partitions: Sequence[int]) -> dict[int, Bounds]:
    """What each partition holds now: up to what is committed, for open transactions are not there yet."""
    from confluent_kafka import KafkaException, TopicPartition

    try:
        return {
            partition: Bounds(
                *consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT)
            )
            for partition in partitions
        }
    except KafkaException as error:
        raise StartupError(f"{topic}: the broker does not say where it ends: {error.args[0].str()}") from None


def scan(
    consumer: Consumer,
    topic: str,
    within: Mapping[int, Bounds],
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Record]:
    """What lies within the bounds, each partition in its order; `advance` hears how many were read.

    The consumer has `enable.partition.eof`: the last offsets below a bound may be a transaction's markers,
    which no reader ever sees.
    """
    from confluent_kafka import KafkaError, TopicPartition

    left = {partition: bound for partition, bound in within.items() if bound.low < bound.high}
    consumer.assign([TopicPartition(topic, partition, bound.low) for partition, bound in left.items()])
    last = time.monotonic()
    while left:
        messages = consumer.consume(AT_ONCE, 0.1)
        count = 0
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                left.pop(partition, None)
            elif error is not None:
                if not error.retriable():
                    raise StartupError(f"{topic} cannot be read: {error.str()}")
            elif partition in left:
                if offset < left[partition].high:
                    count += 1
                    yield read(message)
                if offset + 1 >= left[partition].high:
                    del left[partition]
        if messages:
            advance(count)
            last = time.monotonic()
        elif time.monotonic() - last > TIMEOUT:
            raise StartupError(f"{topic}: the broker has sent nothing for {TIMEOUT:g} s: try again")
    consumer.unassign()
