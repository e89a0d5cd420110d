"""How reading ends: the last commit, and errors that nothing mends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.errors import FatalError, TransientError
from tests.unit.kafka_rig import FIRST, Message, Rig


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.assign()
    return made


def test_a_flush_waits_for_the_answers(rig: Rig) -> None:
    rig.now = 10.0
    rig.source.commit({FIRST: 5})
    rig.poll()
    rig.source.commit({FIRST: 6})
    rig.consumer.queue = [lambda: rig.answer(5), lambda: rig.answer(6), Message(7)]
    rig.source.flush(1.0)
    assert rig.consumer.commits == [({FIRST: 5}, True), ({FIRST: 6}, True)]
    assert len(rig.consumer.queue) == 1, "and no longer"


def test_a_flush_without_an_answer_ends_at_its_deadline(rig: Rig) -> None:
    def pass_time() -> None:
        rig.now += 0.4

    rig.source.commit({FIRST: 5})
    rig.consumer.queue = [pass_time] * 5
    with pytest.raises(TransientError):
        rig.source.flush(1.0)
    assert len(rig.consumer.queue) == 2


def test_a_flush_that_is_refused_says_so(rig: Rig) -> None:
    rig.source.commit({FIRST: 5})
    rig.consumer.queue = [lambda: rig.answer(5, KafkaError(KafkaError.REBALANCE_IN_PROGRESS))]
    with pytest.raises(TransientError):
        rig.source.flush(1.0)


def test_a_flush_sends_again_what_is_refused_while_it_has_time(rig: Rig) -> None:
    rig.source.commit({FIRST: 5})
    refused = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    rig.consumer.queue = [lambda: rig.answer(5, refused), *[lambda: rig.wait(0.1)] * 2, lambda: rig.answer(5)]
    rig.source.flush(1.0)
    assert rig.consumer.commits == [({FIRST: 5}, True)] * 2


def raises(error: KafkaError) -> Callable[[], None]:
    def call() -> None:
        raise KafkaException(error)

    return call


def test_a_fatal_error_ends_a_flush_however_it_comes(rig: Rig) -> None:
    fenced = KafkaError(KafkaError._FENCED, "gone", fatal=True)
    denied = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    for come in (raises(fenced), lambda: rig.source._on_error(fenced), lambda: rig.answer(5, denied)):
        rig.source.commit({FIRST: 5})
        rig.consumer.queue = [come]
        with pytest.raises(FatalError, match=r"_FENCED|GROUP_AUTHORIZATION_FAILED"):
            rig.source.flush(1.0)
    rig.source.commit({FIRST: 6})
    rig.consumer.queue = [Message(0, error=denied)]
    with pytest.raises(FatalError, match="GROUP_AUTHORIZATION_FAILED"):
        rig.source.flush(1.0)


@pytest.mark.parametrize("call", ["pause", "resume"])
def test_a_consumer_that_can_do_no_more_is_fatal(
    rig: Rig, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = raises(KafkaError(KafkaError._FATAL, "gone", fatal=True))
    monkeypatch.setattr(rig.consumer, call, lambda positions: failing(), raising=False)
    with pytest.raises(FatalError, match="gone"):
        getattr(rig.source, call)()


def test_a_commit_that_nothing_would_mend_ends_it_and_is_not_sent_again(rig: Rig) -> None:
    rig.source.commit({FIRST: 5})
    rig.poll()
    rig.answer(5, KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    rig.now = 10.0
    with pytest.raises(FatalError, match="GROUP_AUTHORIZATION_FAILED"):
        rig.poll()
    assert rig.consumer.commits == [({FIRST: 5}, True)]


def test_an_answer_that_nobody_asked_for_is_no_failure(rig: Rig) -> None:
    rig.answer(5)
    assert rig.poll() == []


def test_what_nothing_would_mend_ends_it(rig: Rig) -> None:
    rig.consumer.queue = [Message(0, error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))]
    with pytest.raises(FatalError, match="TOPIC_AUTHORIZATION_FAILED"):
        rig.poll()
    rig.consumer.queue = [Message(0, error=KafkaError(KafkaError._TRANSPORT)), Message(3)]
    assert rig.poll() == [3], "and what passes does not"


def test_a_fatal_error_of_the_client_comes_out_of_poll(rig: Rig) -> None:
    rig.source._on_error(KafkaError(KafkaError._FENCED, "gone", fatal=True))
    with pytest.raises(FatalError):
        rig.poll()
