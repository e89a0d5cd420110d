"""Anything may happen at any time, by seed: crashes, outages, rebalances between members. Nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from streamer.errors import TransientError
from streamer.limits import Limits
from streamer.records import TopicPartition
from tests.engine.accounts import check_accounts
from tests.engine.late import LateClaims
from tests.engine.parts import Claims, Crash, LateSink, PromptSink
from tests.engine.rig import Rig, WatchedSource

RECORDS = 1200
PARTITIONS = 4


class MemberSource(WatchedSource):
    """One member of a group: owns what the group gives it, and commits nothing that another owns by now."""

    group: Group

    def flush(self, timeout: float) -> None:
        for partition in [p for p in self._uncommitted if self.group.owner.get(p) is not self]:
            del self._uncommitted[partition]
        super().flush(timeout)


class Member(Rig):
    """A worker over the group's log, claims and topics."""

    def __init__(self, group: Group, **options: object) -> None:
        self.group = group
        super().__init__(PARTITIONS, **options)  # type: ignore[arg-type]

    def new_source(self) -> WatchedSource:
        group = self.group
        # What all members share; the first of them brought it.
        first = group.members[0] if group.members else self
        self.log, self.memory, self.clock = first.log, first.memory, first.clock
        self.results, self.dead_letters = first.results, first.dead_letters
        self.delayed = first.delayed
        source = MemberSource(self.log, wait=self.clock.wait)
        source.group = group
        return source

    def restart(self) -> None:
        super().restart()
        if isinstance(self.claims, LateClaims):
            self.claims.random = self.group.random
        self.source._events.clear()  # the group assigns


class Group:
    """Moves partitions between members as a coordinator does: with notice (revoked) or without (lost)."""

    def __init__(self, random: Random, sink: type[PromptSink], claims: type[Claims]) -> None:
        self.random = random
        self.owner: dict[TopicPartition, WatchedSource] = {}
        self.members: list[Member] = []
        self.crashes = self.moves = 0
        self.unmarked: set[tuple[int, int]] = set()
        for _ in range(3):
            # So often, a bystander is alone on the device three times when its worker goes.
            limits = Limits(drain=1.0, revoke=0.5, hang=5.0, max_attempts=1000)
            sizes = {"max_records": 32, "max_texts": 8, "max_bytes": 200_000}
            member = Member(self, sink=sink, claims=claims, limits=limits, **sizes)
            if issubclass(sink, LateSink):
                member.sink.rate = 5  # type: ignore[attr-defined]
            self.members.append(member)
        for partition in self.members[0].log.records:
            self.give(partition, random.choice(self.members))

    def give(self, partition: TopicPartition, to: Member) -> None:
        self.owner[partition] = to.source
        to.source.rebalance("assigned", [partition])

    def move(self) -> None:
        """A partition goes to another member; the old one hears of it in time, or when it is too late."""
        partition = self.random.choice(list(self.owner))
        old = next(member for member in self.members if member.source is self.owner[partition])
        new = self.random.choice(self.members)
        self.moves += 1
        if self.random.random() < 0.6:
            old.source.rebalance("revoked", [partition])
            if not self.step(old):
                return  # it crashed over it, and its partitions were given anew
            self.unmarked |= old.unmarked()
        else:
            self.unmarked |= old.unmarked()
            old.source.rebalance("lost", [partition])
        self.give(partition, new)

    def step(self, member: Member) -> bool:
        try:
            member.engine.step()
        except Crash:
            self.crashes += 1
            self.unmarked |= member.unmarked()
            orphans = [partition for partition, source in self.owner.items() if source is member.source]
            member.restart()
            for partition in orphans:
                self.give(partition, self.random.choice(self.members))
            return False
        return True

    def live_through(self, fate: Callable[[str], None]) -> None:
        """Trouble for a while, and then peace until all is committed."""
        for member in self.members:
            member.on = fate
        for _ in range(600):
            if self.random.random() < 0.05:
                self.move()
            self.step(self.random.choice(self.members))
        for member in self.members:
            member.on = lambda point: None
            if isinstance(member.sink, LateSink):
                member.sink.rate = 10**9
        log = self.members[0].log
        for _ in range(2000):
            for member in self.members:
                self.step(member)
            if log.committed == self.members[0].ends:
                break
        assert self.crashes > 0 and self.moves > 5, "the seed brings trouble"


def misfortune(random: Random) -> Callable[[str], None]:
    """A crash now and then, anywhere, and more often something that is away for a moment."""

    def fate(point: str) -> None:
        draw = random.random()
        if draw < 0.005:
            raise Crash(point)
        if draw < 0.03 and point.partition(":")[0] in ("claim", "infer", "mark", "give_back", "index"):
            raise TransientError("away")

    return fate


def fill(rig: Rig, random: Random) -> None:
    ids = 0
    for _ in range(RECORDS):
        partition = random.randrange(PARTITIONS)
        draw = random.random()
        text = "good " * random.randint(1, 12)
        if draw < 0.02:
            rig.log.append(None, partition=partition)
        elif draw < 0.04:
            rig.log.append(b"\xff broken", partition=partition)
        elif draw < 0.06:
            ids += 1
            rig.send(f"{text} {random.choice(['poison', 'refused'])}", f"bad{ids}", partition)
        elif draw < 0.15 and ids:
            rig.send(text, f"id{random.randint(1, ids)}", partition)  # often a duplicate
        else:
            ids += 1
            rig.send(text, f"id{ids}", partition)


@pytest.mark.parametrize("claims", [Claims, LateClaims])
@pytest.mark.parametrize("sink", [PromptSink, LateSink])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_every_record_is_accounted_for(
    seed: int, sink: type[PromptSink], claims: type[Claims]
) -> None:
    random = Random(seed)
    group = Group(random, sink, claims)
    fill(group.members[0], random)

    fate = misfortune(random)

    def scarce_memory_too(point: str) -> None:
        fate(point)
        if point == "infer:before":
            memory = random.choice([20, 50, 10**9])  # a single text of 13 tokens fits always
            for member in group.members:
                member.scorer.memory = memory

    group.live_through(scarce_memory_too)
    check_accounts(group.members[0], explained=group.unmarked)
