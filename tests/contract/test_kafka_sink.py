"""What only a broker can refuse: sizes, missing topics; and where it puts things."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic, time
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from msgspec.structs import replace

from streamer.codec import encode
from streamer.ledger import Lane
from streamer.records import DeadLetter, Release, Result, Skip, TopicPartition
from streamer.sinks.kafka import KafkaSink
from streamer.sinks.topics import Topics
from tests.conftest import MakeTopic
from tests.contract.jobs import dead, job, release, scored
from tests.contract.test_sink import acknowledge, ids, read_topic
from tests.servers import KafkaServer

MakeSink = Callable[..., KafkaSink]


@pytest.fixture
def make_sink(kafka: KafkaServer) -> Iterator[MakeSink]:
    made: list[KafkaSink] = []

    def make(
        results: str,
        dead_letters: str,
        counts: tuple[int, int] = (1, 1),
        limits: Mapping[str, int] = {},
        **own: Any,
    ) -> KafkaSink:
        settings = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "topic.metadata.refresh.interval.ms": 200,
            # How long a topic may be unknown before it counts as missing; 30 s by default.
            "topic.metadata.propagation.max.ms": 200,
            **own,
        }
        partitions = dict(zip((results, dead_letters), counts, strict=True))
        sink = KafkaSink(settings, Topics(results, dead_letters, partitions, limits=limits), encode=encode)
        made.append(sink)
        return sink

    yield make
    for sink in made:
        sink.close()


def create(kafka: KafkaServer, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=30)


def test_a_result_goes_to_the_partition_of_its_record(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out, dlq = make_topic("out", 3), make_topic("dlq", 2)
    sink = make_sink(out, dlq, (3, 2))
    one = release([scored(job(0, 0)), scored(job(0, 2)), scored(job(0, 4)), dead(job(1, 3)), dead(job(1, 4))])
    sink.publish(one)
    acknowledge(sink, one)
    placed = {
        partition: msgspec.json.decode(found.value or b"")["id"]
        for partition, found in read_topic(kafka, out, 3, 3)
    }
    assert placed == {0: "0-0", 2: "2-0", 1: "4-0"}
    assert sorted(partition for partition, _ in read_topic(kafka, dlq, 2, 2)) == [0, 1]


def test_a_result_that_the_topic_does_not_take_becomes_a_dead_letter(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out, dlq = make_topic("out", 1, {"max.message.bytes": "5000"}), make_topic("dlq", 1)
    sink = make_sink(out, dlq)
    jobs = [scored(job(0)), scored(job(1), size=20_000), scored(job(2))]
    one = release(jobs)
    sink.publish(one)
    deadline = monotonic() + 30
    while not sink.refused:
        assert monotonic() < deadline
        sink.poll(0.02)
    assert sink.refused == [jobs[1]] and sink._writer.in_flight == 0, "somebody has to see it first"
    acknowledge(sink, one)
    assert ids([found for _, found in read_topic(kafka, out, 1, 2)]) == ["0-0", "0-2"]
    ((_, letter),) = read_topic(kafka, dlq, 1, 1)
    assert letter.value == b"value 1" and dict(letter.headers)["dlq.reason"] == b"result_too_large"
    assert [type(one.settled) for one in jobs] == [Result, DeadLetter, Result]


def test_small_results_survive_a_topic_with_a_small_limit(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    """The broker limits what is sent together: the batch is too large, and none of its results is."""
    out, dlq = make_topic("out", 1, {"max.message.bytes": "5000"}), make_topic("dlq", 1)
    sink = make_sink(out, dlq)
    releases = [release(scored(job(offset), size=500) for offset in range(at, at + 50)) for at in (0, 50)]
    for one in releases:
        sink.publish(one)
    acknowledge(sink, *releases)
    assert ids([found for _, found in read_topic(kafka, out, 1, 100)]) == [f"0-{n}" for n in range(100)]
    assert read_topic(kafka, dlq, 1, 0) == []


def test_small_dead_letters_survive_a_topic_with_a_small_limit(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out, dlq = make_topic("out", 1), make_topic("dlq", 1, {"max.message.bytes": "5000"})
    sink = make_sink(out, dlq)
    one = release(dead(job(offset)) for offset in range(50))
    sink.publish(one)
    acknowledge(sink, one)
    letters = [found.value for _, found in read_topic(kafka, dlq, 1, 50)]
    assert letters == [b"value %d" % offset for offset in range(50)]


def test_nothing_overtakes_a_result_that_the_topic_does_not_take(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    """Many batches are under way at a time. One that is refused would go again behind the others."""
    out, dlq = make_topic("out", 1, {"max.message.bytes": "20000"}), make_topic("dlq", 1)
    sink = make_sink(out, dlq, limits={out: 20_000}, **{"batch.num.messages": 10, "batch.size": 1_000_000})
    connected = release([scored(job(0))])
    sink.publish(connected)
    acknowledge(sink, connected)
    jobs = [scored(job(n), size=30_000 if n == 105 else 100) for n in range(1, 501)]
    releases = [release(jobs[at : at + 50]) for at in range(0, 500, 50)]
    for one in releases:
        sink.publish(one)
        sink.poll(0)
    acknowledge(sink, *releases)
    found = ids([found for _, found in read_topic(kafka, out, 1, 500)])
    assert found == [f"0-{offset}" for offset in range(501) if offset != 105]
    assert [found.value for _, found in read_topic(kafka, dlq, 1, 1)] == [b"value 105"]


def test_what_only_compression_makes_small_enough_is_written(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out, dlq = make_topic("out", 1, {"max.message.bytes": "5000"}), make_topic("dlq", 1)
    sink = make_sink(out, dlq, limits={out: 5000}, **{"compression.type": "gzip"})
    one = release(scored(job(offset), size=20_000) for offset in range(3))
    sink.publish(one)
    acknowledge(sink, one)
    assert ids([found for _, found in read_topic(kafka, out, 1, 3)]) == ["0-0", "0-1", "0-2"]


def test_a_dead_letter_from_the_future_has_the_time_of_writing_and_others_keep_theirs(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out, dlq = make_topic("out", 1), make_topic("dlq", 1)
    sink = make_sink(out, dlq)
    jobs = [job(0), job(1), job(2)]
    now = int(time() * 1000)
    jobs[1].record = replace(jobs[1].record, timestamp=now + 7_200_000)
    one = release(map(dead, jobs))
    sink.publish(one)
    acknowledge(sink, one)
    letters = {found.value: found for _, found in read_topic(kafka, dlq, 1, 3)}
    assert [letters[one.record.value].timestamp for one in (jobs[0], jobs[2])] == [
        1_700_000_000_000,
        1_700_000_000_002,
    ]
    late = letters[b"value 1"]
    assert abs(late.timestamp - now) < 60_000
    assert dict(late.headers)["dlq.timestamp"] == b"%d" % (now + 7_200_000)


def test_what_a_missing_topic_holds_up_is_delivered_in_order_once_it_is_there(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out = make_topic("out", 1)
    missing = f"{out}-dlq"
    sink = make_sink(out, missing)
    releases = [release([scored(job(n)), dead(job(n + 1))]) for n in range(0, 20, 2)]
    for one in releases:
        sink.publish(one)
    deadline = monotonic() + 30
    while sink._backoff.failures == 0:  # until it was refused for the first time
        assert monotonic() < deadline
        sink.poll(0.02)
    assert all(one.unacknowledged for one in releases), "its dead letter is not written"
    late = release([scored(job(20)), dead(job(21))])
    sink.publish(late)
    create(kafka, missing)
    acknowledge(sink, *releases, late)
    assert ids([found for _, found in read_topic(kafka, out, 1, 11)]) == [f"0-{n}" for n in range(0, 22, 2)]
    letters = [found.value for _, found in read_topic(kafka, missing, 1, 11)]
    assert letters == [b"value %d" % n for n in range(1, 23, 2)]


def test_what_is_held_of_a_partition_that_is_gone_is_dropped(
    kafka: KafkaServer, make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out = make_topic("out", 1)
    missing = f"{out}-dlq"
    sink = make_sink(out, missing)
    gone, kept = Lane(TopicPartition("texts.in", 0)), Lane(TopicPartition("texts.in", 1))
    lost, mine = dead(job(0, 0, lane=gone)), dead(job(0, 1, lane=kept))
    one = release([lost, mine])
    sink.publish(one)
    deadline = monotonic() + 30
    while sink._backoff.failures == 0:
        assert monotonic() < deadline
        sink.poll(0.02)
    gone.closed = True
    create(kafka, missing)
    acknowledge(sink, one)
    assert isinstance(lost.settled, Skip), "so that nobody marks it as written"
    assert isinstance(mine.settled, DeadLetter)
    assert len(read_topic(kafka, missing, 1, 1)) == 1


def test_closing_leaves_nothing_acknowledged_that_was_not_written(
    make_topic: MakeTopic, make_sink: MakeSink
) -> None:
    out = make_topic("out", 1)
    sink = make_sink(out, f"{out}-missing")
    one: Release = release([dead(job(0))])
    sink.publish(one)
    sink.close()
    assert one.unacknowledged == 1
