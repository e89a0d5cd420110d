"""The stand-in takes the time it is told to, and nothing else."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from streamer.backends.fake import FakeBackend
from streamer.errors import ConfigurationError
from streamer.ledger import Lane
from streamer.records import Classification, Job, Record


def jobs_of(backend: FakeBackend, *texts: str) -> list[Job]:
    jobs = []
    for offset, (text, (tokens, encoded, _)) in enumerate(zip(texts, backend.encode(texts), strict=True)):
        record = Record("texts.in", 0, offset, 0, None, text.encode(), [])
        jobs.append(Job(record, cast(Lane, None), len(text), text=text, tokens=tokens, encoded=encoded))
    return jobs


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_it_sleeps_for_the_batch_its_texts_and_its_tokens(slept: list[float]) -> None:
    backend = FakeBackend(base_ms=1, per_text_us=20, per_token_us=3)
    backend.infer(jobs_of(backend, "good", "not so good"))
    assert slept == [pytest.approx(1e-3 + 2 * 20e-6 + (2 + 5) * 3e-6)]


def test_a_batch_of_64_takes_what_the_benchmark_calls_its_ceiling(slept: list[float]) -> None:
    backend = FakeBackend(base_ms=1, per_text_us=20)
    backend.infer(jobs_of(backend, *["很好"] * 64))
    assert 64 / sum(slept) == pytest.approx(28_070, abs=1)


def test_it_does_not_sleep_at_all_when_it_is_to_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr(time, "sleep", fail)
    backend = FakeBackend()
    assert len(backend.infer(jobs_of(backend, "a", "b"))) == 2


def test_labels_follow_from_the_text_alone() -> None:
    backend, twin = FakeBackend(), FakeBackend()
    texts = ["a", "ab", "很好吃", "不好"]
    values = cast(list[Classification], backend.infer(jobs_of(backend, *texts)))
    assert [value.label for value in values] == ["positive", "negative", "positive", "negative"]
    assert twin.infer(jobs_of(twin, *texts)) == values
    assert all(value.score == value.scores[value.label] == max(value.scores.values()) for value in values)


def test_every_text_has_at_least_one_token() -> None:
    assert FakeBackend().encode(["", "a", "abcd"]) == [(1, None, False), (1, None, False), (2, None, False)]


@pytest.mark.parametrize("key", ["base_ms", "per_text_us", "per_token_us"])
def test_a_time_below_zero_is_refused(key: str) -> None:
    settings: dict[str, Any] = {key: -1}
    with pytest.raises(ConfigurationError, match=rf"fake.{key} is -1: a time cannot be below 0"):
        FakeBackend(**settings)


def test_it_describes_itself_and_needs_no_warm_up(slept: list[float]) -> None:
    backend = FakeBackend(base_ms=1.5)
    assert backend.warm_up() == 0.0
    assert slept == []
    assert backend.describe() == {
        "name": "fake",
        "revision": "1",
        "base_ms": 1.5,
        "per_text_us": 0.0,
        "per_token_us": 0.0,
    }
