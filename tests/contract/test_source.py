"""What the engine relies on in a source, over memory and over a real broker with each group protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from streamer.errors import FatalError
from streamer.records import Record, TopicPartition
from tests.conftest import MakeTopic
from tests.contract.source_worlds import KafkaWorld, MemoryWorld, World, read, until
from tests.servers import KafkaServer

MakeWorld = Callable[[int], World]


@pytest.fixture(params=["memory", "classic", "consumer"])
def make_world(request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    made: list[World] = []

    def make(partitions: int) -> World:
        world: World
        if request.param == "memory":
            world = MemoryWorld(partitions)
        else:
            kafka: KafkaServer = request.getfixturevalue("kafka")
            make_topic: MakeTopic = request.getfixturevalue("make_topic")
            topic = make_topic("source", partitions)
            world = KafkaWorld(kafka.bootstrap_servers, topic, partitions, request.param)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


def test_records_come_untouched_and_in_order(make_world: MakeWorld) -> None:
    world = make_world(2)
    headers: list[tuple[str, bytes | None]] = [("id", b"7"), ("id", None), ("trace", b"\xff\x00")]
    world.append(b"first", 0, key=b"\x00k", headers=headers, timestamp=1_700_000_000_123)
    world.append(None, 0, key=b"gone")
    world.append(b"", 0)
    for number in range(50):
        world.append(b"%d" % number, 1)
    source, listener = world.member()
    records = read(source, 53)
    first, tombstone, empty, *_ = [record for record in records if record.partition == 0]
    assert (first.topic, first.offset, first.value, first.key) == (world.topic, 0, b"first", b"\x00k")
    assert first.headers == headers and first.timestamp == 1_700_000_000_123
    assert (tombstone.value, tombstone.key, tombstone.headers) == (None, b"gone", [])
    assert empty.value == b"" and empty.key is None
    assert [int(record.value or b"") for record in records if record.partition == 1] == list(range(50))
    assert [record.offset for record in records if record.partition == 1] == list(range(50))
    assert listener.owned == {TopicPartition(world.topic, 0), TopicPartition(world.topic, 1)}


def test_a_poll_brings_no_more_than_asked_for(make_world: MakeWorld) -> None:
    world = make_world(1)
    for number in range(20):
        world.append(b"%d" % number)
    source, _ = world.member()
    seen: list[int] = []
    for most in (1, 7, 3):
        records: list[Record] = []
        while not records:
            records = source.poll(most, 0.05)
            assert len(records) <= most
        seen += [record.offset for record in records]
    assert seen == list(range(len(seen)))


def test_the_next_member_goes_on_from_the_committed_offset(make_world: MakeWorld) -> None:
    world = make_world(1)
    for number in range(10):
        world.append(b"%d" % number)
    source, _ = world.member()
    read(source, 10)
    partition = TopicPartition(world.topic, 0)
    source.commit({partition: 3})
    source.commit({partition: 6})
    source.flush(10.0)
    assert world.committed() == {0: 6}
    source.flush(10.0)  # nothing left to do
    source.close()
    again, _ = world.member()
    assert [record.offset for record in read(again, 4)] == [6, 7, 8, 9]


def test_commits_happen_while_polling(make_world: MakeWorld) -> None:
    world = make_world(1)
    world.append(b"0")
    source, _ = world.member()
    read(source, 1)
    source.commit({TopicPartition(world.topic, 0): 1})
    until(lambda: world.committed() == {0: 1}, source)


def test_partitions_of_others_are_not_committed(make_world: MakeWorld) -> None:
    world = make_world(2)
    source, listener = world.member()
    until(lambda: len(listener.owned) == 2, source)
    gone = world.take_one_away(source, listener)
    source.commit({gone: 5})
    source.flush(10.0)
    assert gone.partition not in world.committed()


def test_a_pause_holds_records_back_and_a_resume_loses_none(make_world: MakeWorld) -> None:
    world = make_world(2)
    for number in range(30):
        world.append(b"%d" % number, number % 2)
    source, _ = world.member()
    records = read(source, 4, most=4)
    source.pause()
    for number in range(30, 40):
        world.append(b"%d" % number, number % 2)
    for _ in range(5):
        assert source.poll(100, 0.05) == []
    source.resume()
    until(lambda: len(records) >= 40, source, into=records)
    assert sorted(int(record.value or b"") for record in records) == list(range(40))
    for number in (0, 1):
        assert [record.offset for record in records if record.partition == number] == list(range(20))


def test_it_says_when_a_partition_is_read_to_its_end(make_world: MakeWorld) -> None:
    world = make_world(2)
    for number in range(5):
        world.append(b"%d" % number, 0)
    source, _ = world.member()
    first, empty = TopicPartition(world.topic, 0), TopicPartition(world.topic, 1)
    until(lambda: dict(source.ends()) == {first: 5, empty: 0}, source)
    world.append(b"more", 0)
    read(source, 1)
    until(lambda: dict(source.ends()) == {first: 6, empty: 0}, source)


def test_the_end_is_known_however_large_the_poll(make_world: MakeWorld) -> None:
    """The last records and the news that they are the last may come together."""
    world = make_world(1)
    source, listener = world.member()
    until(lambda: bool(listener.owned) and len(source.ends()) == 1, source)
    for count in range(1, 6):
        for number in range(200):
            world.append(b"%d" % number)
        read(source, 200, most=10_000)
        until(lambda end=count * 200: dict(source.ends()) == {TopicPartition(world.topic, 0): end}, source)  # type: ignore[misc]


def test_who_loses_a_partition_may_still_commit_it_when_told(make_world: MakeWorld) -> None:
    world = make_world(2)
    for number in range(4):
        world.append(b"%d" % number, number % 2)
    source, listener = world.member()
    read(source, 4)

    def settle(event: str, partitions: Sequence[TopicPartition]) -> None:
        if event == "revoked":
            source.commit(dict.fromkeys(partitions, 2))

    listener.on = settle
    gone = world.take_one_away(source, listener)
    until(lambda: world.committed() == {gone.partition: 2}, source)
    assert gone not in source.ends()
    assert "revoked" in listener.events and "lost" not in listener.events and len(listener.owned) == 1
    listener.on = lambda event, partitions: None


def test_it_is_exhausted_when_all_that_is_there_was_read(make_world: MakeWorld) -> None:
    world = make_world(2)
    world.append(b"1", 0)
    source, listener = world.member()
    until(lambda: bool(listener.owned) and len(source.ends()) == 2, source)
    assert source.exhausted()
    world.append(b"2", 1)
    assert not source.exhausted(), "before the next poll"
    until(source.exhausted, source)


def test_a_partition_that_comes_back_is_read_from_the_committed_offset(make_world: MakeWorld) -> None:
    world = make_world(1)
    for number in range(6):
        world.append(b"%d" % number)
    source, _ = world.member()
    read(source, 6)
    source.pause()
    source.commit({TopicPartition(world.topic, 0): 4})
    source.flush(10.0)
    source.close()
    again, _ = world.member()
    assert [record.offset for record in read(again, 2)] == [4, 5]


def test_what_the_listener_raises_comes_out_of_poll(make_world: MakeWorld) -> None:
    world = make_world(1)
    source, listener = world.member()

    def refuse(event: str, partitions: Sequence[TopicPartition]) -> None:
        raise FatalError("not these")

    listener.on = refuse
    with pytest.raises(FatalError, match="not these"):
        until(lambda: False, source)
    listener.on = lambda event, partitions: None


def test_closing_gives_the_partitions_back(make_world: MakeWorld) -> None:
    world = make_world(2)
    source, listener = world.member()
    until(lambda: len(listener.owned) == 2, source)
    source.close()
    assert not listener.owned and set(listener.events[1:]) == {"revoked"}
