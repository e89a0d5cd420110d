"""From librdkafka's message to our record: the fields are taken and the message, 881 bytes of it, let go.

Everything that reads Kafka reads it here, for headers can be asked for once only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamer.records import Defect, Record

if TYPE_CHECKING:
    from confluent_kafka import Message


def read(message: Message) -> Record:
    """The record; what of it cannot be read is said in its `defect`."""
    headers: Any
    defect = None
    try:
        headers = message.headers() or []
    except (SystemError, UnicodeDecodeError):
        # A header name that is not UTF-8. The client cannot show any of the headers then, and a second call
        # returns broken objects: ask once.
        headers = []
        defect = Defect(
            "invalid_headers", "the name of a header is not UTF-8: none of the headers can be read"
        )
    return Record(
        message.topic(),  # type: ignore[arg-type]
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers,
        defect,
    )
