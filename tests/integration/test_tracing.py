"""Traces of a worker that is a process of its own, over a real Kafka, to a receiver of OTLP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collector import DROPPED, PARENT, SAMPLED, TRACE, Collector, attributes
from tests.conftest import MakeTopic
from tests.integration.dlq import headers
from tests.integration.line import Line
from tests.servers import KafkaServer


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def line(kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path, kafka, redis_url, make_topic, 1)
    yield line
    line.close()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_trace_goes_from_its_producer_through_the_worker_to_who_reads(
    line: Line, collector: Collector, monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    """With the standard's variables and nothing else; what is left is sent when the worker ends."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scores")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")  # milliseconds: later than the worker ends
    line.config |= {"ops": {"tracing": "otlp"}, "delivery": delivery}
    for value, sent in (
        (b'{"id": "good", "text": "fine"}', SAMPLED),
        (b'{"id": "dropped", "text": "fine"}', DROPPED),
        (b"no JSON", SAMPLED),
    ):
        line.publish(value, 0, [("traceparent", sent.encode()), ("tracestate", b"a=b")])
    line.flush()
    worker = line.start("--exit-when-idle", "1")
    assert worker.wait() == 0, worker.log.read_text("utf-8")

    assert collector.services == {"scores"}
    (batch,) = collector.named("infer fake")
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in batch.links] == [(TRACE, PARENT)]
    assert attributes(batch)["messaging.batch.message_count"] == 2
    spans = {attributes(span)["streamer.outcome"]: span for span in collector.named("process")}
    assert spans.keys() == {"result", "dead_letter"}, "the trace that nobody keeps has no span"
    for span in spans.values():
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert attributes(span)["messaging.destination.name"] == line.input

    good, dropped = map(headers, line.reader(line.output).all())
    (bad,) = map(headers, line.reader(line.dead_letters).all())
    assert good["traceparent"] == f"00-{TRACE}-{spans['result'].span_id.hex()}-01"
    assert bad["traceparent"] == f"00-{TRACE}-{spans['dead_letter'].span_id.hex()}-01"
    assert dropped["traceparent"] == DROPPED, "it passes as it came"
    assert {each["tracestate"] for each in (good, dropped, bad)} == {"a=b"}
