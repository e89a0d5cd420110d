"""Traces through the line, to a receiver that speaks OTLP over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from streamer.codec import encode
from streamer.errors import ConfigurationError
from streamer.records import Envelope
from streamer.tracing import Tracing, connect
from streamer.worker import InlineWorker
from tests.collector import DROPPED, PARENT, SAMPLED, TRACE, Collector, attributes
from tests.engine.rig import Rig, headers


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    yield collector
    collector.close()


def scored(messages: list[tuple[str, list[tuple[str, bytes | None]]]]) -> Rig:
    """A line with tracing on, over these texts and headers, to its end; all spans are sent."""
    provider = connect()
    tracing = Tracing(provider, encode, group="group")
    rig = Rig(max_texts=8)
    rig.worker = lambda scorer: InlineWorker(tracing.backend(scorer))
    rig.restart()
    rig.sink._encode = tracing.encode
    for text, sent in messages:
        rig.log.append(b'{"text": "%s"}' % text.encode(), headers=sent)
    rig.run()
    provider.shutdown()
    return rig


def traceparent(envelope: Envelope) -> list[str]:
    return headers(envelope).get("traceparent", "").split("-")


def test_a_result_is_a_child_in_its_records_trace(collector: Collector) -> None:
    before = time.time_ns()
    rig = scored([("fine", [("traceparent", SAMPLED.encode()), ("tracestate", b"a=b"), ("kept", b"yes")])])
    (result,) = rig.results
    (span,) = collector.named("process")
    assert traceparent(result) == ["00", TRACE, span.span_id.hex(), "01"]
    assert (headers(result)["tracestate"], headers(result)["kept"]) == ("a=b", "yes")
    assert [name for name, _ in result.headers].count("traceparent") == 1
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_CONSUMER
    assert span.start_time_unix_nano <= span.end_time_unix_nano and span.end_time_unix_nano >= before
    found = attributes(span)
    assert found["streamer.outcome"] == "result"
    assert (found["messaging.system"], found["messaging.consumer.group.name"]) == ("kafka", "group")
    assert found["messaging.destination.name"] == "texts.in"
    assert collector.services == {"streamer"}


def test_a_batch_has_a_span_that_links_to_its_records(collector: Collector) -> None:
    traced: list[tuple[str, bytes | None]] = [("traceparent", SAMPLED.encode())]
    scored([("one two", traced), ("one", [("traceparent", DROPPED.encode())]), ("one two three", traced)])
    (batch,) = collector.named("infer")
    assert batch.name == "infer scorer"
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in batch.links] == [(TRACE, PARENT)] * 2
    assert (
        attributes(batch)["messaging.batch.message_count"],
        attributes(batch)["streamer.batch.tokens"],
    ) == (3, 6)
    assert batch.trace_id.hex() != TRACE and not batch.parent_span_id


def test_a_dead_letter_keeps_its_trace_and_no_text_is_told(collector: Collector) -> None:
    rig = scored([("poison secret", [("traceparent", SAMPLED.encode())])])
    (letter,) = rig.dead_letters
    (span,) = collector.named("process")
    assert traceparent(letter) == ["00", TRACE, span.span_id.hex(), "01"]
    assert attributes(span)["streamer.outcome"] == "dead_letter"
    assert attributes(span)["error.type"] == headers(letter)["dlq.reason"]
    assert span.status.code == Status.STATUS_CODE_ERROR
    (batch,) = collector.named("infer")
    assert batch.status.code == Status.STATUS_CODE_ERROR
    assert "secret" not in str(collector.spans)


@pytest.mark.parametrize("sent", [None, DROPPED.encode(), b"", b"\xff", b"00-0-0-01", SAMPLED[:-1].encode()])
def test_a_record_that_nobody_traces_passes_as_it_came(collector: Collector, sent: bytes | None) -> None:
    came: list[tuple[str, bytes | None]] = [("traceparent", sent), ("kept", b"yes")]
    (result,) = scored([("fine", came)]).results
    assert result.headers == came
    assert collector.named("process") == []
    assert len(collector.named("infer")) == 1


def test_a_protocol_that_it_does_not_speak_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'.*4318"):
        connect()
