"""Traces by OpenTelemetry: a record's trace goes on into its result, and each batch has a span.

    producer --> process texts.in --> who reads the result     one a record, in the record's own trace
                       ^ link
                 infer sentiment                               one a batch, a trace of its own

A record whose `traceparent` says that it is sampled gets a span from its being read to its being written, and
the message that leaves carries that span as its parent. Any other record passes as it came: streamer follows
traces and starts none for records. Where spans go is the standard's business (OTEL_* variables).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streamer import __version__
from streamer.errors import ConfigurationError
from streamer.protocols import Backend
from streamer.records import Classification, Delay, Envelope, Job, Result

PROPAGATED = ("traceparent", "tracestate")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OURS = "http/protobuf"

_w3c = TraceContextTextMapPropagator()

Headers = Iterable[tuple[str, bytes | None]]


def connect() -> TracerProvider:
    """Spans go to the collector that the environment names, from a thread, and what is left at exit.

    Raises ConfigurationError for another protocol than OTLP over HTTP.
    """
    for variable in PROTOCOLS:
        if os.environ.get(variable, OURS) != OURS:
            raise ConfigurationError(
                f"{variable} is '{os.environ[variable]}': streamer speaks {OURS}, to port 4318 of a collector"
            )
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "streamer"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Puts spans around what a backend infers and what a sink writes."""

    def __init__(self, provider: TracerProvider, encode: Callable[[Job], Envelope], *, group: str) -> None:
        self._tracer = provider.get_tracer("streamer", __version__)
        self._encode = encode
        self._group = group

    def encode(self, job: Job) -> Envelope:
        """The message for a settled job, as a child of the record's span."""
        envelope = self._encode(job)
        record = job.record
        parent = context_of(record.headers)
        if parent is None:
            return envelope
        now = time.time_ns()
        waited = int((time.monotonic() - job.read_at) * 1e9)
        span = self._tracer.start_span(
            f"process {record.topic}",
            parent,
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": self._group,
                **_outcome(job),
            },
            start_time=now - waited,
        )
        if not isinstance(job.settled, Result):
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)
        carrier: dict[str, str] = {}
        _w3c.inject(carrier, set_span_in_context(span))
        headers = [header for header in envelope.headers if header[0] not in PROPAGATED]
        headers += [(name, value.encode()) for name, value in carrier.items()]
        return envelope._replace(headers=headers)

    def backend(self, backend: Backend) -> Backend:
        return _TracedBackend(backend, self._tracer)


class _TracedBackend:
    """A span a batch, with links to the records that are traced. It runs on the worker's thread."""

    def __init__(self, backend: Backend, tracer: Any) -> None:
        self.name, self.revision = backend.name, backend.revision
        self.encode, self.cost = backend.encode, backend.cost
        self._infer = backend.infer
        self._tracer = tracer

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        contexts = [context_of(job.record.headers) for job in jobs]
        with self._tracer.start_as_current_span(
            f"infer {self.name}",
            attributes={
                "messaging.batch.message_count": len(jobs),
                "streamer.batch.tokens": sum(job.tokens for job in jobs),
                "streamer.model.name": self.name,
                "streamer.model.revision": self.revision,
            },
            links=[Link(_span_of(context)) for context in contexts if context is not None],
            # The message of an error may quote a text.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return self._infer(jobs)
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


def context_of(headers: Headers) -> Context | None:
    """The trace that a record belongs to; None if it has none, or nobody keeps it."""
    carrier = {name: value.decode("latin-1") for name, value in headers if name in PROPAGATED and value}
    if "traceparent" not in carrier:
        return None
    context = _w3c.extract(carrier)
    return context if _span_of(context).trace_flags.sampled else None


def _span_of(context: Context) -> SpanContext:
    return get_current_span(context).get_span_context()


def _outcome(job: Job) -> dict[str, str]:
    settled = job.settled
    if isinstance(settled, Result):
        return {"streamer.outcome": "result"}
    if isinstance(settled, Delay):
        return {"streamer.outcome": "delayed"}
    return {"streamer.outcome": "dead_letter", "error.type": getattr(settled, "reason", "")}
