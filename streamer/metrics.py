"""Every figure that streamer keeps of itself. The engine writes; `ops.py` exports what it reads here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.records import TopicPartition


@dataclass(slots=True)
class Metrics:
    """Plain numbers since the start. One thread writes and others only read, so there is no lock.

    Results, dead letters, delayed records and skips count once they are written. `lag` holds the partitions
    whose lag is known; `polled_at` is the engine's clock at its last step.
    """

    records: int = 0
    results: int = 0
    delayed: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    failed_batches: int = 0
    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    device_seconds: float = 0.0
    budget_tokens: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    rebalances: int = 0
    assigned: int = 0
    in_flight_bytes: int = 0
    paused: bool = False
    polled_at: float = 0.0
    lag: Mapping[TopicPartition, int] = field(default_factory=dict)
