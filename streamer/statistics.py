"""What librdkafka tells of itself every few seconds; its STATISTICS.md describes the fields."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamer.records import TopicPartition

UNKNOWN = -1  # and below


class _Partition(msgspec.Struct):
    consumer_lag: int = UNKNOWN  # behind the committed offset, and only if this very consumer commits
    app_offset: int = UNKNOWN  # after the newest record that was handed out
    ls_offset: int = UNKNOWN  # the end, for a reader of committed records


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition]


class _Broker(msgspec.Struct):
    nodeid: int = UNKNOWN
    state: str = ""


class _Group(msgspec.Struct, frozen=True):
    state: str = ""


class Statistics(msgspec.Struct):
    topics: dict[str, _Topic]
    brokers: dict[str, _Broker] = {}
    cgrp: _Group = _Group()

    @property
    def brokers_up(self) -> int:
        """Brokers with a connection; the coordinator's own connection is one more to the same broker."""
        return sum(broker.state == "UP" for broker in self.brokers.values() if broker.nodeid > UNKNOWN)

    @property
    def coordinated(self) -> bool:
        """Whether the group's coordinator is there."""
        return self.cgrp.state == "up"

    def lags(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Records between the position and the end, by partition; one that is not known is absent.

        `ends` are the partitions that were read to their end, and the offset there: beyond the newest record
        there may be transaction markers, which nobody is handed.
        """
        found = {}
        for topic, each in self.topics.items():
            for number, partition in each.partitions.items():
                at = TopicPartition(topic, int(number))
                position = ends.get(at, partition.app_offset)
                if partition.ls_offset > UNKNOWN and position > UNKNOWN:
                    found[at] = max(0, partition.ls_offset - position)
                elif partition.consumer_lag > UNKNOWN:
                    found[at] = partition.consumer_lag
        return found


read_statistics = msgspec.json.Decoder(Statistics).decode
