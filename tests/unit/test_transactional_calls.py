"""Calls of a transactional producer that never return, or raise what is not Kafka's."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from time import monotonic

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from streamer.codec import encode
from streamer.errors import FatalError
from streamer.sinks import writer
from streamer.sinks.calls import Call
from streamer.sinks.topics import Topics
from streamer.sinks.transactional import TransactionalSink


class Silent(Producer):
    """A producer whose initialisation does not come back."""

    made = 0
    end: Event

    def __init__(self, settings: dict[str, object]) -> None:
        super().__init__(settings)
        type(self).made += 1

    def init_transactions(self, *args: float) -> None:
        self.end.wait()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Silent]]:
    class Mine(Silent):
        end = Event()

    monkeypatch.setattr(writer, "Producer", Mine)
    yield Mine
    Mine.end.set()


class Group:
    def membership(self) -> None: ...

    def notes(self, partitions: object) -> dict[object, str]:
        return {}


def sink_at(now: list[float]) -> TransactionalSink:
    return TransactionalSink(
        {"bootstrap.servers": "127.0.0.1:9", "log_level": 0, "transaction.timeout.ms": 20_000},
        Topics("out", "dlq", {}),
        transactional_id="x",
        group=Group(),  # type: ignore[arg-type]
        encode=encode,
        clock=lambda: now[0],
    )


def test_an_initialisation_that_never_returns_costs_a_producer(silent: type[Silent]) -> None:
    now = [0.0]
    sink = sink_at(now)
    for _ in range(30):
        sink.poll(0)
        now[0] += 1
    assert silent.made == 2, "one is given more than its 20 s, and another comes"
    for _ in range(200):
        sink.poll(0)
        now[0] += 1
    assert 4 <= silent.made <= 10
    sink.close()


def answer_of(call: Call) -> KafkaError | None:
    deadline = monotonic() + 10
    while not call.answered:
        assert monotonic() < deadline
    return call.error()


def raise_this(error: BaseException) -> None:
    raise error


def test_an_error_of_kafka_is_an_answer_and_any_other_is_the_end() -> None:
    timed_out = KafkaError(KafkaError._TIMED_OUT)
    assert answer_of(Call(raise_this, KafkaException(timed_out), clock=monotonic)) == timed_out
    assert answer_of(Call(lambda: None, clock=monotonic)) is None
    with pytest.raises(FatalError, match="raise_this: TypeError: no such argument"):
        answer_of(Call(raise_this, TypeError("no such argument"), clock=monotonic))
