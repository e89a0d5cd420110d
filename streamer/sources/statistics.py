"""The lag in librdkafka's statistics, which its STATISTICS.md describes."""

from __future__ import annotations

import msgspec

from streamer.records import TopicPartition


class _Partition(msgspec.Struct):
    consumer_lag: int = -1


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition]


class _Statistics(msgspec.Struct):
    topics: dict[str, _Topic]


def lags(statistics: str) -> dict[TopicPartition, int]:
    """Records behind the end by partition, at the time; one that is not known is absent."""
    return {
        TopicPartition(name, int(number)): partition.consumer_lag
        for name, topic in msgspec.json.decode(statistics, type=_Statistics).topics.items()
        for number, partition in topic.partitions.items()
        if partition.consumer_lag >= 0
    }
