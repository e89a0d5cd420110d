"""A stand-in for a model that takes a known time: benchmarks and capacity tests measure the line with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from streamer.errors import ConfigurationError
from streamer.records import Classification, Encoding, Job

_POSITIVE = Classification("positive", 0.9, {"negative": 0.1, "positive": 0.9})
_NEGATIVE = Classification("negative", 0.9, {"negative": 0.9, "positive": 0.1})


class FakeBackend:
    """Sleeps on the worker's thread, `base_ms + per_text_us * texts + per_token_us * tokens` a batch.

    With all three at 0 it does not sleep at all: what is left is the cost of the line. The label depends on
    nothing but the text, so two runs agree.
    """

    name = "fake"
    revision = "1"
    threads = 1

    def __init__(self, base_ms: float = 0.0, per_text_us: float = 0.0, per_token_us: float = 0.0) -> None:
        """Milliseconds a batch, microseconds a text and a token. Raises ConfigurationError below 0."""
        times = {"base_ms": base_ms, "per_text_us": per_text_us, "per_token_us": per_token_us}
        for key, value in times.items():
            if value < 0:
                raise ConfigurationError(f"fake.{key} is {value:g}: a time cannot be below 0")
        self._base = base_ms / 1e3
        self._per_text = per_text_us / 1e6
        self._per_token = per_token_us / 1e6

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """A token for every two characters: between Chinese (one) and English (four)."""
        return [Encoding(len(text) // 2 or 1, None) for text in texts]

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        """It sleeps for tokens, and knows no padding."""
        return tokens

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        """Positive when the text's length is odd. Every job of a label shares one value."""
        seconds = self.seconds(jobs)
        if seconds:
            time.sleep(seconds)
        return [_POSITIVE if len(job.text) & 1 else _NEGATIVE for job in jobs]

    def seconds(self, jobs: Sequence[Job]) -> float:
        """How long `infer` sleeps for these jobs."""
        seconds = self._base + self._per_text * len(jobs)
        if self._per_token:
            seconds += self._per_token * sum(job.tokens for job in jobs)
        return seconds

    does_not_fit: int | None = None

    def warm_up(self) -> float:
        """Nothing to warm up: 0 seconds."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """What `streamer check` and the start's log line say of it."""
        return {
            "name": self.name,
            "revision": self.revision,
            "base_ms": self._base * 1e3,
            "per_text_us": self._per_text * 1e6,
            "per_token_us": self._per_token * 1e6,
        }
