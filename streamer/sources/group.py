"""The consumer's offsets in its group, and what a transaction that commits them asks of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Position

from streamer.errors import FatalError, TransientError
from streamer.records import TopicPartition

ASSIGNOR = "partition.assignment.strategy"
COOPERATIVE = "cooperative-sticky"
ANSWER = 1.0  # seconds for the broker's answer
# Nothing that waiting would mend.
HOPELESS = {
    KafkaError._FATAL,  # it comes as a message too, and then `fatal()` is not set
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.FENCED_INSTANCE_ID,
}


def ending(error: KafkaError) -> FatalError:
    return FatalError(f"{error.name()}: {error.str()}")


@contextmanager
def no_way_on() -> Iterator[None]:
    """For calls of the consumer that raise what nothing mends, whatever `error_cb` is there for."""
    try:
        yield
    except KafkaException as error:
        raise ending(error.args[0]) from None


class KafkaGroup:
    """The consumer as a member of its group, on the consumer's thread."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def membership(self) -> Any:
        """What a transaction shows to the broker when it commits our offsets; None when we are no member.

        A member that was thrown out and does not know yet is refused for its generation. One that knows
        has no generation to be refused for: the broker would take its offsets as those of a stranger.
        """
        metadata = self._consumer.consumer_group_metadata()
        return metadata if self.joined else None

    @property
    def joined(self) -> bool:
        """Whether this is a member, as far as it knows."""
        return bool(self._consumer.memberid())

    def committed(
        self, partitions: Sequence[TopicPartition], timeout: float = ANSWER
    ) -> dict[TopicPartition, int]:
        """The group's offsets; a partition without one is absent. Raises TransientError."""
        answers = self._ask(partitions, timeout)
        return {TopicPartition(at.topic, at.partition): at.offset for at in answers if at.offset >= 0}

    def notes(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, str]:
        """What was committed beside the group's offsets, where something was. Raises TransientError."""
        answers = self._ask(partitions, ANSWER)
        return {TopicPartition(at.topic, at.partition): at.metadata for at in answers if at.metadata}

    def _ask(self, partitions: Sequence[TopicPartition], timeout: float) -> list[Position]:
        try:
            asked = positions_of(dict.fromkeys(partitions, OFFSET_INVALID))
            answers = self._consumer.committed(asked, timeout=timeout)
        except KafkaException as error:
            raise TransientError(f"committed offsets: {error.args[0]}") from error
        if failed := [answer for answer in answers if answer.error is not None]:
            raise TransientError(f"committed offsets: {failed[0].error}")
        return answers

    def end(self, partition: TopicPartition) -> int:
        """The offset after the last record that we may read. Raises TransientError."""
        try:
            answer = self._consumer.get_watermark_offsets(Position(*partition), timeout=ANSWER)
        except KafkaException as error:
            raise TransientError(f"the end of {partition}: {error.args[0]}") from error
        if answer is None:
            raise TransientError(f"the end of {partition}: no answer")
        return answer[1]


def with_assignor(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A consumer's settings with how members share the partitions out: by default cooperatively.

    Not static members: a cooperative rebalance is two. Should a member die between them, its heir gets what
    the first one left it, nobody starts the second, and what was to move has no owner, until somebody comes
    or goes. With KIP-848 the broker assigns, and librdkafka refuses to be told how.
    """
    chosen = dict(settings)
    if chosen.get("group.protocol") == "consumer":
        chosen.pop(ASSIGNOR, None)
    else:
        chosen.setdefault(ASSIGNOR, "range" if "group.instance.id" in chosen else COOPERATIVE)
    return chosen


def is_cooperative(chosen: Mapping[str, Any]) -> bool:
    """Whether partitions come and go one by one, and not all at once."""
    return bool(chosen.get(ASSIGNOR, COOPERATIVE) == COOPERATIVE)


def partition_of(position: Position) -> TopicPartition:
    return TopicPartition(position.topic, position.partition)


def partitions_of(positions: Sequence[Position]) -> list[TopicPartition]:
    return [partition_of(position) for position in positions]


def positions_of(offsets: Mapping[TopicPartition, int]) -> list[Position]:
    return [Position(topic, partition, offset) for (topic, partition), offset in offsets.items()]
