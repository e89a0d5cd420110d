"""The main job: real Kafka, real Redis, workers as processes, everything accounted for."""

from __future__ import annotations

import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import msgspec
import pytest
import redis
from confluent_kafka import Message

from tests import corpus
from tests.conftest import MakeTopic
from tests.integration.line import Line, review, wait_until
from tests.servers import KafkaServer

MakeLine = Callable[[int], Line]
RECORDS, PARTITIONS = 20_000, 4


class Answer(msgspec.Struct):
    id: str
    label: str
    source: dict[str, int | str]


def answer(message: Message) -> Answer:
    return msgspec.json.decode(message.value() or b"", type=Answer)


def header(message: Message, name: str) -> str:
    return dict(message.headers() or [])[name].decode()  # type: ignore[union-attr]


@pytest.fixture
def make_line(
    kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, tmp_path: Path
) -> Iterator[MakeLine]:
    made: list[Line] = []

    def make(partitions: int) -> Line:
        made.append(Line(tmp_path, kafka, redis_url, make_topic, partitions))
        return made[-1]

    yield make
    for line in made:
        line.close()


class Traffic:
    """What was published: by id where it is good, by coordinate where it is not."""

    def __init__(self, line: Line, seed: int) -> None:
        dice = random.Random(seed)
        self.good: dict[str, tuple[int, int]] = {}  # where each id came first, in its partition
        self.bad: set[tuple[int, int]] = set()
        self.skips = 0
        offsets: Counter[int] = Counter()
        for number in range(RECORDS):
            partition = number % PARTITIONS
            at = (partition, offsets[partition])
            offsets[partition] += 1
            draw = dice.random()
            if draw < 0.01:
                line.publish(dice.choice([b"", b"not JSON", b'{"text": 1}', b'{"text": "\xff"}']), partition)
                self.bad.add(at)
            elif draw < 0.015:
                line.publish(None, partition)
                self.skips += 1
            elif draw < 0.03 and self.good:
                id = dice.choice(list(self.good)[-5000:])
                line.publish(msgspec.json.encode({"id": id, "text": review(dice)}), partition)
                self.skips += 1
            else:
                id = f"review-{number}"
                line.publish(msgspec.json.encode({"id": id, "text": review(dice)}), partition)
                self.good[id] = at
        line.flush()


def test_20_000_records_with_a_worker_that_joins_and_one_that_leaves(make_line: MakeLine) -> None:
    line = make_line(PARTITIONS)
    # 33 ms for 64 texts: slow enough for a rebalance each way while there is work.
    line.config["fake"] = {"base_ms": 7.0, "per_text_us": 400.0}
    traffic = Traffic(line, seed=7)
    watcher = line.reader(line.output)

    first = line.start()
    wait_until(lambda: first.well and watcher.read() > 1000, "the first worker's results")
    second = line.start("--exit-when-idle", "1.5")
    wait_until(lambda: watcher.read() > 0 and second.said("partitions assigned"), "the second worker")
    at_handover = watcher.read()
    wait_until(lambda: second.well and watcher.read() > at_handover + 2000, "results of both")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0, "it drained"
    at_leave = watcher.read()
    assert second.wait() == 0, "it ended when there was no more to do"
    assert at_leave < len(traffic.good), "one left while there was work"

    results = line.reader(line.output).all()
    dead = line.reader(line.dead_letters).all()
    answers = [answer(message) for message in results]
    # Invariants 1 and 2: each id once, in one place.
    assert Counter(one.id for one in answers) == Counter(dict.fromkeys(traffic.good, 1))
    places = Counter((int(header(m, "dlq.partition")), int(header(m, "dlq.offset"))) for m in dead)
    assert places == Counter(dict.fromkeys(traffic.bad, 1))
    assert len(results) + len(dead) + traffic.skips == RECORDS
    # Invariant 3: the order in which they came, per partition.
    written: dict[int | None, list[int]] = defaultdict(list)
    for message, one in zip(results, answers, strict=True):
        assert message.partition() == one.source["partition"]
        written[message.partition()].append(int(one.source["offset"]))
    assert len(written) == PARTITIONS
    assert all(offsets == sorted(offsets) for offsets in written.values())
    # At rest, all is committed.
    assert line.committed() == line.ends()


def test_bad_input_ends_in_the_dead_letter_topic_with_its_reason(make_line: MakeLine) -> None:
    line = make_line(1)
    line.config["input"] = {"max_bytes": corpus.MAX_BYTES}
    cases = corpus.JSON
    for case in cases:
        line.publish(case.value, 0, case.headers)
    line.flush()
    worker = line.start("--exit-when-idle", "0.5")
    assert worker.wait() == 0
    by_offset = {int(header(m, "dlq.offset")): m for m in line.reader(line.dead_letters).all()}
    assert {cases[offset].name: header(m, "dlq.reason") for offset, m in by_offset.items()} == {
        case.name: case.reason for case in cases if case.reason
    }
    for offset, message in by_offset.items():
        assert message.value() == cases[offset].value, "as it came"
        assert header(message, "dlq.topic") == line.input
    written = [int(answer(message).source["offset"]) for message in line.reader(line.output).all()]
    assert written == [offset for offset, case in enumerate(cases) if case.reason is None]
    assert line.committed() == line.ends()


def test_a_second_signal_ends_it_at_once_and_loses_nothing(make_line: MakeLine, redis_url: str) -> None:
    line = make_line(1)
    line.config["fake"] = {"base_ms": 20_000.0}
    for number in range(10):
        line.publish(msgspec.json.encode({"id": str(number), "text": "nice"}), 0)
    line.flush()
    worker = line.start()
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: worker.well and int(client.hlen(line.claims)) >= 10, "claims: the batch is next")
    worker.signal(signal.SIGTERM)
    # The first signal lets it drain; a batch of 20 s keeps it from that.
    wait_until(lambda: worker.process.poll() is not None or signalled_again(worker.signal), "its end")
    assert worker.wait() == 130
    line.config["fake"] = {"base_ms": 1.0}
    assert line.start("--exit-when-idle", "0.5").wait() == 0
    answers = [answer(message).id for message in line.reader(line.output).all()]
    assert answers == [str(number) for number in range(10)]


def signalled_again(send: Callable[[signal.Signals], None]) -> bool:
    send(signal.SIGTERM)
    return False


def test_an_idle_worker_ends_and_an_empty_topic_is_idle(make_line: MakeLine) -> None:
    line = make_line(2)
    started = monotonic()
    assert line.start("--exit-when-idle", "0.3").wait() == 0
    assert monotonic() - started < 30
    assert line.reader(line.output).all() == []
