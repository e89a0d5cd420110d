"""Warnings that come again and again."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError

from streamer import logs
from streamer.logs import JsonFormatter, SparingHandler


class Log:
    """A logger of its own over a handler that lets a warning through every 10 seconds."""

    def __init__(self, repeat: float = 10.0) -> None:
        self.now = 100.0
        self.stream = io.StringIO()
        self.handler = SparingHandler(self.stream, repeat, clock=lambda: self.now)
        self.handler.setFormatter(JsonFormatter())
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(self.handler)

    def lines(self) -> list[tuple[str, int]]:
        """Message and how many of its kind were left out before it."""
        found: list[dict[str, Any]] = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [(line["message"], line.get("left_out", 0)) for line in found]


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("streamer").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.handler.close()


def test_the_same_warning_comes_once_and_then_with_a_count(log: Log) -> None:
    for number in range(5):
        log.logger.warning("claim waits %d s", number)
    assert log.lines() == [("claim waits 0 s", 0)]
    log.now += 10
    log.logger.info("something else")
    assert log.lines()[1:] == [("claim waits 4 s", 4), ("something else", 0)]
    log.logger.warning("claim waits %d s", 5)
    assert len(log.lines()) == 3, "ten seconds from the last line on"


def test_a_warning_that_came_once_is_as_new_after_a_while(log: Log) -> None:
    log.logger.warning("once")
    log.now += 10
    log.logger.warning("once")
    assert log.lines() == [("once", 0), ("once", 0)]


def test_what_names_another_thing_is_another_warning(log: Log) -> None:
    for stage in ("claim", "mark", "claim"):
        log.logger.warning("%s waits %d s", stage, 3)
    log.logger.error("%s waits %d s", "claim", 3)
    assert [message for message, _ in log.lines()] == ["claim waits 3 s", "mark waits 3 s", "claim waits 3 s"]


def test_neither_less_nor_worse_is_left_out(log: Log) -> None:
    for _ in range(2):
        log.logger.info("started")
        log.logger.critical("broken")
    assert len(log.lines()) == 4


def test_the_last_count_is_told_at_the_end(log: Log) -> None:
    for number in range(3):
        log.logger.warning("number %d", number)
    log.handler.close()
    assert log.lines() == [("number 0", 0), ("number 2", 2)]


def test_the_last_word_of_a_command_comes_behind_what_was_left_out(
    capfd: pytest.CaptureFixture[str], logging_restored: None
) -> None:
    logs.configure("json", "info", repeat=60)
    for number in range(3):
        logging.getLogger("streamer.test").warning("number %d", number)
    assert logs.say_last("why", 3)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["message"], line.get("left_out")) for line in lines] == [
        ("number 0", None),
        ("number 2", 2),
        ("why", None),
    ]
    assert (lines[-1]["level"], lines[-1]["exit_code"]) == ("error", 3)


def test_people_are_told_the_last_word_by_the_command_line(logging_restored: None) -> None:
    logs.configure("text")
    assert not logs.say_last("why", 3)


def test_it_can_be_turned_off() -> None:
    log = Log(repeat=0)
    for _ in range(3):
        log.logger.warning("again")
    assert len(log.lines()) == 3


@pytest.mark.parametrize(("level", "said"), [(logging.INFO, ["info"]), (logging.WARNING, [])])
def test_a_coordinator_that_has_just_started_is_no_warning(
    log: Log, caplog: pytest.LogCaptureFixture, level: int, said: list[str]
) -> None:
    """As confluent-kafka hands librdkafka's words on; any other cause of them stays a warning."""
    caplog.set_level(level, logger="test")
    failed = "Failed to acquire transactional PID from broker TxnCoordinator/1"
    for why in ("Broker: Coordinator load in progress", "Local: Timed out"):
        log.logger.warning("%s [%s] %s", "GETPID", "rdkafka#producer-1", f"{failed}: {why}")
    lines = [json.loads(line) for line in log.stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == [*said, "warning"]


def test_an_error_of_librdkafka_may_be_what_a_warning_says(log: Log) -> None:
    log.logger.warning("commit failed: %s", KafkaError(KafkaError.ILLEGAL_GENERATION))
    ((message, _),) = log.lines()
    assert "ILLEGAL_GENERATION" in message
