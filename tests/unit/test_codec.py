"""Bytes to text, and settled jobs to bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.codec import Decoder, IdSource, encode, scrub
from streamer.errors import RecordError
from streamer.ledger import Lane
from streamer.records import Coordinate, DeadLetter, Job, Record, Result, Text, TopicPartition
from tests import corpus

ALL_IDS: tuple[IdSource, ...] = ("header", "field", "content", "coordinate")


def record(value: bytes | None, *, key: bytes | None = None, headers: Any = (), offset: int = 0) -> Record:
    return Record("texts.in", 3, offset, 1_700_000_000_000, key, value, list(headers))


def json_decoder(*id_from: IdSource) -> Decoder:
    return Decoder("json", id_from or ALL_IDS, corpus.MAX_BYTES)


def result_for(of: Record, id: str, text: Text) -> Job:
    job = Job(of, Lane(TopicPartition(of.topic, of.partition)), 0, id, text.text, text.meta)
    source = Coordinate(of.topic, of.partition, of.offset, of.timestamp)
    scores = {"positive": 0.75, "negative": 0.25}
    job.settled = Result(id, "positive", 0.75, scores, "m", "r1", source, 5, text.meta)
    return job


def id_of(result: bytes) -> str:
    """Of a result that is well-formed UTF-8 and JSON to its end, whatever is in its meta."""
    return msgspec.json.decode(
        msgspec.json.decode(result.decode(), type=dict[str, msgspec.Raw])["id"], type=str
    )


def check(decoder: Decoder, case: corpus.Case) -> None:
    """A case is refused with its reason, or its result can be written and read."""
    incoming = record(case.value, headers=case.headers)
    if case.reason is not None:
        with pytest.raises(RecordError) as refused:
            decoder.decode(incoming)
        assert refused.value.reason == case.reason
        return
    id, text = decoder.decode(incoming)
    assert id and text.text
    written = encode(result_for(incoming, id, text)).value
    assert written is not None
    assert id_of(written) == id


@pytest.mark.parametrize("case", corpus.JSON, ids=lambda case: case.name)
def test_json_corpus(case: corpus.Case) -> None:
    check(json_decoder(), case)


@pytest.mark.parametrize("case", corpus.MSGPACK, ids=lambda case: case.name)
def test_msgpack_corpus(case: corpus.Case) -> None:
    check(Decoder("msgpack", ALL_IDS, corpus.MAX_BYTES), case)


@pytest.mark.parametrize("case", corpus.TEXT, ids=lambda case: case.name)
def test_text_corpus(case: corpus.Case) -> None:
    check(Decoder("text", ALL_IDS, corpus.MAX_BYTES), case)


# -- fuzzing: decode returns or raises RecordError, and what it returns can be written -------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
almost_inputs = st.fixed_dictionaries(
    {}, optional={"text": st.text(max_size=20) | json_values, "id": json_values, "meta": json_values}
)


@st.composite
def damaged(draw: st.DrawFn, wire: st.SearchStrategy[bytes]) -> bytes:
    """A valid value with a few bytes replaced, removed or put in."""
    value = bytearray(draw(wire))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(value)


def decodes_or_refuses(decoder: Decoder, value: bytes) -> None:
    incoming = record(value)
    try:
        id, text = decoder.decode(incoming)
    except RecordError as error:
        assert error.reason and error.detail
        return
    assert id_of(encode(result_for(incoming, id, text)).value or b"") == id


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=64) | damaged(almost_inputs.map(msgspec.json.encode)))
def test_any_bytes_as_json_decode_or_are_refused(value: bytes) -> None:
    decodes_or_refuses(json_decoder(), value)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.binary(max_size=64)
    | damaged(
        st.fixed_dictionaries(
            {"text": st.text(max_size=9)}, optional={"meta": st.binary() | st.floats()}
        ).map(msgspec.msgpack.encode)
    )
)
def test_any_bytes_as_msgpack_decode_or_are_refused(value: bytes) -> None:
    decodes_or_refuses(Decoder("msgpack", ALL_IDS, 10_000), value)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=64) | st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_as_text_decode_or_are_refused(value: bytes) -> None:
    decodes_or_refuses(Decoder("text", ALL_IDS, 10_000), value)


def nested(levels: int) -> bytes:
    return b'{"text": "nice", "meta": ' + b"[" * levels + b"]" * levels + b"}"


def test_what_could_be_read_can_be_written_from_anywhere() -> None:
    """A result is written deeper in the program than its record was read: its meta must not mind."""

    def write_deep_down(frames: int, job: Job) -> bytes | None:
        return encode(job).value if frames == 0 else write_deep_down(frames - 1, job)

    accepted = 0
    for levels in range(800, 1000):
        incoming = record(nested(levels))
        try:
            id, text = json_decoder().decode(incoming)
        except RecordError as error:
            assert error.reason == "too_deep"
            continue
        accepted += 1
        assert b"[" * levels in (write_deep_down(200, result_for(incoming, id, text)) or b"")
    assert accepted > 50


# -- ids -------------------------------------------------------------------------------------------------


def test_the_id_is_the_first_that_is_there() -> None:
    body = b'{"text": "nice", "id": "from-field"}'
    with_header = record(body, headers=[("trace", b"1"), ("id", b"from-header")])
    assert json_decoder("header", "field").decode(with_header)[0] == "from-header"
    assert json_decoder("field", "header").decode(with_header)[0] == "from-field"
    assert json_decoder("header", "field").decode(record(body))[0] == "from-field"
    assert json_decoder("header", "coordinate").decode(record(body, offset=9))[0] == "texts.in:3:9"


def test_a_number_is_an_id_like_its_digits() -> None:
    assert json_decoder().decode(record(b'{"text": "nice", "id": 17}'))[0] == "17"


def test_without_any_source_the_coordinate_is_the_id() -> None:
    assert json_decoder("field").decode(record(b'{"text": "nice"}', offset=4))[0] == "texts.in:3:4"


def test_equal_content_of_one_key_is_one_id_and_of_two_keys_are_two() -> None:
    decoder, body = json_decoder("content"), b'{"text": "fine"}'
    first = decoder.decode(record(body, key=b"anna", offset=1))[0]
    assert decoder.decode(record(body, key=b"anna", offset=2))[0] == first
    assert decoder.decode(record(body, key=b"bert", offset=3))[0] != first
    assert decoder.decode(record(b'{"text": "Fine"}', key=b"anna"))[0] != first


def test_key_and_content_do_not_run_into_each_other() -> None:
    decoder = Decoder("text", ["content"], 100)
    assert decoder.decode(record(b"bc", key=b"a"))[0] != decoder.decode(record(b"c", key=b"ab"))[0]


def test_a_value_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    decoder = Decoder("text", ["coordinate"], 4)
    assert decoder.decode(record(b"1234"))[1].text == "1234"
    with pytest.raises(RecordError, match="5 bytes; the limit is 4"):
        decoder.decode(record(b"12345"))


def test_messages_of_refusals_do_not_quote_the_text() -> None:
    for value in (b'{"text": "secret', b'{"text": ["secret"]}', b'{"text": "secret\xff"}', b"secret"):
        with pytest.raises(RecordError) as refused:
            json_decoder().decode(record(value))
        assert "secret" not in str(refused.value)


# -- writing ---------------------------------------------------------------------------------------------


def test_a_result_says_what_the_contract_says() -> None:
    incoming = record(
        b'{"text": "nice", "id": "a", "meta": {"n": [1, 2.5]}}', key=b"k", headers=[("traceparent", b"00-1")]
    )
    envelope = encode(result_for(incoming, *json_decoder().decode(incoming)))
    assert msgspec.json.decode(envelope.value or b"") == {
        "id": "a",
        "label": "positive",
        "score": 0.75,
        "scores": {"positive": 0.75, "negative": 0.25},
        "model": "m",
        "revision": "r1",
        "source": {"topic": "texts.in", "partition": 3, "offset": 0, "timestamp": 1_700_000_000_000},
        "processed_at": 5,
        "meta": {"n": [1, 2.5]},
    }
    assert (envelope.key, envelope.headers, envelope.timestamp) == (b"k", [("traceparent", b"00-1")], 0)


def test_a_result_without_meta_has_none_and_null_stays_null() -> None:
    for body, expected in ((b'{"text": "a"}', False), (b'{"text": "a", "meta": null}', True)):
        incoming = record(body)
        written = encode(result_for(incoming, *json_decoder().decode(incoming))).value or b""
        assert ("meta" in msgspec.json.decode(written)) is expected


def dead(of: Record, message: str = "why") -> Job:
    job = Job(of, Lane(TopicPartition(of.topic, of.partition)), 0)
    job.settled = DeadLetter("invalid_json", "RecordError", message, "decode", 1, "m", 7)
    return job


def test_a_dead_letter_is_the_record_as_it_came_with_our_headers() -> None:
    incoming = record(b"\xff\x00", key=b"\x01", headers=[("trace", None), ("trace", b"\xfe")], offset=8)
    envelope = encode(dead(incoming))
    assert (envelope.key, envelope.value, envelope.timestamp) == (b"\x01", b"\xff\x00", 1_700_000_000_000)
    assert envelope.headers[:2] == [("trace", None), ("trace", b"\xfe")]
    assert dict(envelope.headers[2:]) == {
        "dlq.reason": b"invalid_json",
        "dlq.error": b"RecordError",
        "dlq.message": b"why",
        "dlq.topic": b"texts.in",
        "dlq.partition": b"3",
        "dlq.offset": b"8",
        "dlq.timestamp": b"1700000000000",
        "dlq.attempts": b"1",
        "dlq.stage": b"decode",
        "dlq.model": b"m",
        "dlq.failed_at": b"7",
    }


def test_incoming_headers_under_our_prefix_are_dropped() -> None:
    incoming = record(b'{"text": "a"}', headers=[("dlq.reason", b"forged"), ("trace", b"1"), ("dlq.x", b"")])
    names = [name for name, _ in encode(dead(incoming)).headers]
    assert names.count("dlq.reason") == 1 and "dlq.x" not in names and "trace" in names
    assert encode(result_for(incoming, *json_decoder().decode(incoming))).headers == [("trace", b"1")]
    assert len(incoming.headers) == 3, "the record itself stays as it came"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=3000))
def test_any_message_fits_a_header(message: str) -> None:
    line = scrub(message)
    assert len(line.encode()) <= 1024 and "\n" not in line
    assert dict(encode(dead(record(b""), message)).headers)["dlq.message"] == line.encode()


def test_headers_beyond_the_bound_are_refused_before_the_value_is_looked_at() -> None:
    decoder = Decoder("json", ["field"], 1000, max_headers=3)
    headers: list[tuple[str, bytes | None]] = [("a", b"")] * 4
    with pytest.raises(RecordError) as caught:
        decoder.decode(Record("texts.in", 0, 0, 0, None, b"not JSON", headers))
    assert (caught.value.reason, caught.value.detail) == ("too_many_headers", "4 headers; the limit is 3")
    record = Record("texts.in", 0, 0, 0, None, b'{"id": "1", "text": "fine"}', headers[:3])
    assert decoder.decode(record)[0] == "1"
