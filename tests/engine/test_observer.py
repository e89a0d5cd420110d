"""What the metrics say of a line that works, waits, and is stuck."""

from __future__ import annotations

import logging
import math

import pytest

from streamer.observer import INTERVAL
from streamer.records import TopicPartition
from tests.engine.rig import TOPIC, Rig

FIRST = TopicPartition(TOPIC, 0)


def look(rig: Rig) -> None:
    """One step, late enough for the observer to look."""
    rig.clock.now += INTERVAL
    rig.engine.step()


def test_windows_and_batches_are_measured() -> None:
    rig = Rig(max_records=16, max_texts=8)
    for number in range(32):
        rig.send("fine day", str(number))
    rig.run()
    metrics = rig.engine.metrics
    assert (sum(metrics.window_records.counts), metrics.window_records.sum) == (2, 32)
    assert (sum(metrics.batch_texts.counts), metrics.batch_texts.sum) == (4, 32)
    assert metrics.batch_tokens.sum == metrics.computed_tokens == metrics.tokens == 64
    assert sum(metrics.batch_seconds.counts) == metrics.batches == 4
    assert metrics.device_busy == pytest.approx(metrics.batch_seconds.sum), "one after the other"
    assert 0 < metrics.window_wait.sum < 1
    assert sum(metrics.end_to_end.counts) > 0


def test_operations_are_counted_where_they_are_known() -> None:
    rig = Rig()
    metrics = rig.engine.metrics
    rig.send("one two three", "a")
    rig.run()
    assert metrics.flops is None
    rig.restart()
    metrics = rig.engine.metrics
    metrics.flops, metrics.flops_of_text = 0.0, (5.0, 100.0, 2.0)
    rig.send("one two three", "b")
    rig.send("one", "c")
    rig.run()
    assert metrics.flops == 5 * 2 + 100 * 4 + 2 * (9 + 1)


def test_what_waits_and_how_long() -> None:
    rig = Rig(max_age=60.0, linger=60.0)
    look(rig)
    assert math.isinf(rig.engine.metrics.oldest_at)
    rig.send("fine", "a")
    rig.engine.step()
    read_at = rig.clock.now
    look(rig)
    metrics = rig.engine.metrics
    assert metrics.queues == {"window": 1, "claims": 0, "planned": 0, "publishing": 0, "device": 0}
    assert metrics.oldest_at == pytest.approx(read_at, abs=0.2)
    assert (metrics.in_flight_records, metrics.lag, metrics.lag_unknown) == (1, {FIRST: 1}, 0)
    assert metrics.in_flight_bytes > 0


def test_the_device_has_work_until_it_gives_a_batch_back() -> None:
    rig = Rig()
    look(rig)
    metrics = rig.engine.metrics
    assert (metrics.device_busy_since, metrics.batch_at) == (math.inf, None)
    rig.send("fine", "a")
    rig.run()
    look_at = rig.clock.now
    rig.restart()
    rig.send("fine", "b")
    rig.run()
    assert rig.engine.metrics.batches == 1
    rig.engine._observer.step(look_at + 100)
    assert rig.engine.metrics.batch_at == look_at + 100
    assert rig.engine.metrics.device_busy_since == math.inf, "nothing is left to do"


def test_a_rebalance_is_one_line_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(partitions=2)
    with caplog.at_level(logging.INFO, logger="streamer"):
        rig.engine.step()
        rig.source.rebalance("revoked", [FIRST])
        rig.engine.step()
        rig.source.rebalance("lost", [TopicPartition(TOPIC, 1)])
        rig.engine.step()
    metrics = rig.engine.metrics
    assert metrics.rebalances == {"assigned": 1, "revoked": 1, "lost": 1}
    assert (metrics.assigned, metrics.member) == (0, False)
    said = [(record.levelname, record.getMessage(), vars(record)["partitions"]) for record in caplog.records]
    assert said == [
        ("INFO", "partitions assigned", [f"{TOPIC}[0]", f"{TOPIC}[1]"]),
        ("INFO", "partitions revoked", [f"{TOPIC}[0]"]),
        ("WARNING", "partitions lost", [f"{TOPIC}[1]"]),
    ]


def test_a_window_is_a_line_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(max_records=4)
    for number in range(4):
        rig.send("fine", str(number))
    with caplog.at_level(logging.DEBUG, logger="streamer.observer"):
        rig.run()
    closed = [vars(record) for record in caplog.records if record.getMessage() == "window closed"]
    assert [line["records"] for line in closed] == [4]
