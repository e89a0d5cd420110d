"""Bytes to text and settled jobs to bytes: the contracts of the topics.

Input values are JSON, MessagePack or plain UTF-8; results are JSON; dead letters are the record as it came,
with `dlq.*` text headers. The id of a record is the first that is there of the places in `id_from`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, assert_never

import msgspec

from streamer.delays import RETRY_PREFIX, Past
from streamer.errors import RecordError
from streamer.records import DeadLetter, Delay, Envelope, Job, Record, Text

Format = Literal["json", "msgpack", "text"]
IdSource = Literal["header", "field", "content", "coordinate"]

DEAD_LETTER_PREFIX = "dlq."
MAX_MESSAGE_BYTES = 1024


class _JsonText(Text, frozen=True, gc=False):
    """`meta` is not looked into and leaves as it came.

    To build it and write it again would lose what Python cannot hold, and would fail on a value nested
    almost too deeply: results are written further down the stack than records are read.
    """

    meta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(_JsonText).decode
_decode_msgpack = msgspec.msgpack.Decoder(Text).decode


class Decoder:
    """Turns a record's value into a text and an id.

    `max_bytes` bounds the value, and `max_headers` their number, before anything looks into them.
    """

    def __init__(
        self, format: Format, id_from: Sequence[IdSource], max_bytes: int, max_headers: int = 1000
    ) -> None:
        self._parse = _parser(format)
        self._id_from = tuple(id_from)
        self._max_bytes = max_bytes
        self._max_headers = max_headers

    def decode(self, record: Record) -> tuple[str, Text]:
        """The record's id and text. Raises RecordError with the reason that the dead letter will carry."""
        if record.defect:
            raise RecordError(*record.defect)
        value = record.value or b""
        if len(value) > self._max_bytes:
            raise RecordError("too_large", f"{len(value)} bytes; the limit is {self._max_bytes}")
        if len(record.headers) > self._max_headers:
            raise RecordError(
                "too_many_headers", f"{len(record.headers)} headers; the limit is {self._max_headers}"
            )
        text = self._parse(value)
        if not text.text or text.text.isspace():
            raise RecordError("empty_text", "the text is empty or only white space")
        return self._identify(record, text), text

    def _identify(self, record: Record, text: Text) -> str:
        for source in self._id_from:
            if source == "field":
                if text.id is not None and text.id != "":
                    return str(text.id)
            elif source == "header":
                if record.headers and (header := _id_header(record)):
                    return header
            elif source == "content":
                # The key belongs to it: two customers who both write "fine" are two records.
                digest = blake2b(record.key or b"", digest_size=16)
                digest.update(b"\0" + (record.value or b""))
                return digest.hexdigest()
            elif source == "coordinate":
                break
            else:
                assert_never(source)
        return f"{record.topic}:{record.partition}:{record.offset}"


def encode(job: Job) -> Envelope:
    """The message for a settled job: its result, or, when it is dead or delayed, the record as it came.

    Key, headers and with them the trace context pass through; `dedup: skipped` is added when deduplication
    was away and not waited for. Headers with the prefix `dlq.` are ours alone: what comes in is dropped.
    """
    record, settled = job.record, job.settled
    headers = record.headers
    if headers and any(name.startswith(DEAD_LETTER_PREFIX) for name, _ in headers):
        headers = [header for header in headers if not header[0].startswith(DEAD_LETTER_PREFIX)]
    if job.unclaimed:
        headers = [*headers, ("dedup", b"skipped")]
    if isinstance(settled, DeadLetter):
        headers = [*headers, *_explained(DEAD_LETTER_PREFIX, _fields(record, settled))]
        return Envelope(record.key, record.value, headers, record.timestamp)
    if isinstance(settled, Delay):
        return _delayed(job, settled, headers)
    return Envelope(record.key, _encode_json(settled), headers)


def scrub(message: str) -> str:
    """An error message cut to 1 KB, on one line: it may quote data, and it travels in a header."""
    line = " ".join(message.split())
    return line.encode(errors="replace")[:MAX_MESSAGE_BYTES].decode(errors="ignore")


def _parser(format: Format) -> Callable[[bytes], Text]:
    match format:
        case "json":
            return _parse_json
        case "msgpack":
            return _parse_msgpack
        case "text":
            return _parse_text
        case _:
            assert_never(format)


def _parse_json(value: bytes) -> Text:
    try:
        text = _decode_json(value)
        if text.meta is not msgspec.UNSET and not value.isascii():
            value.decode()  # what is not looked into is not checked either, and results are UTF-8
        return text
    except msgspec.ValidationError as error:
        raise RecordError("invalid_type", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError("invalid_json", _without_data(error)) from error
    except RecursionError as error:
        raise RecordError("too_deep", "the value is nested too deeply") from error


def _parse_msgpack(value: bytes) -> Text:
    try:
        text = _decode_msgpack(value)
        if text.meta is msgspec.UNSET:
            return text
        # Results are JSON, and MessagePack can say more: find that out here, where one record fails.
        return Text(text.text, text.id, msgspec.Raw(_encode_json(text.meta)))
    except msgspec.ValidationError as error:
        raise RecordError("invalid_type", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError("invalid_msgpack", _without_data(error)) from error
    except (TypeError, ValueError) as error:
        raise RecordError("invalid_type", f"meta cannot be written as JSON: {error}") from error
    except RecursionError as error:
        raise RecordError("too_deep", "the value is nested too deeply") from error


def _parse_text(value: bytes) -> Text:
    try:
        return Text(value.decode())
    except UnicodeDecodeError as error:
        raise RecordError("invalid_utf8", _without_data(error)) from error


def _without_data(error: Exception) -> str:
    """What went wrong and where; the text of a UnicodeDecodeError's own message quotes the byte only."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return str(error)


def _id_header(record: Record) -> str | None:
    for name, value in record.headers:
        if name == "id" and value:
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise RecordError("invalid_id", "the header 'id' is not UTF-8") from error
    return None


def _delayed(job: Job, delay: Delay, headers: list[tuple[str, bytes | None]]) -> Envelope:
    """For a retry topic. It has the time of writing there, or else its retention might take it at once."""
    record, past = job.record, Past.of(job.record)
    kept = [header for header in headers if not header[0].startswith(RETRY_PREFIX)]
    if job.id == f"{record.topic}:{record.partition}:{record.offset}" and _id_header(record) is None:
        kept.append(("id", job.id.encode()))  # it comes back with another coordinate, and keeps this id
    fields = _fields(record, delay.why) | {"origin": past.origin, "timestamp": past.timestamp}
    fields |= {"level": str(delay.level), "due": str(delay.due)}
    return Envelope(record.key, record.value, [*kept, *_explained(RETRY_PREFIX, fields)])


def _fields(record: Record, dead: DeadLetter) -> dict[str, str]:
    return {
        "reason": dead.reason,
        "error": dead.error,
        "message": scrub(dead.message),
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "attempts": str(dead.attempts),
        "stage": dead.stage,
        "model": dead.model,
        "failed_at": str(dead.failed_at),
    }


def _explained(prefix: str, fields: Mapping[str, str]) -> list[tuple[str, bytes | None]]:
    return [(prefix + name, value.encode()) for name, value in fields.items()]
