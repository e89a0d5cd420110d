"""All letters of the topic with what became of them: the state that the index holds too, from its source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from streamer.deadletters.letters import Foreign, Letter, Note, Step
from streamer.state.entries import Audit, Entry


class Catalogue:
    """Fed with what a scan finds, each partition in its order.

    A letter may lie there twice: a worker that crashed before its commit writes it again. The copies are one
    letter, and the last of them says how it is. What a replay has noted stands in the partition of the
    letters and after them: a topic that loses its oldest messages never keeps a letter and loses its note.
    """

    def __init__(self) -> None:
        self.foreign: list[Foreign] = []
        self.notes = 0
        self.origins: dict[str, tuple[str, int]] = {}
        self._copies: dict[str, list[Letter]] = defaultdict(list)
        self._replayed: set[tuple[int, int]] = set()
        self._audits: dict[str, Audit] = {}

    def add(self, found: Letter | Note | Foreign, partition: int) -> None:
        if isinstance(found, Letter):
            self._copies[found.entry.key].append(found)
        elif isinstance(found, Foreign):
            self.foreign.append(found)
        else:
            self._note(found, partition)

    def __len__(self) -> int:
        return len(self._copies)

    def __iter__(self) -> Iterator[Letter]:
        """The letters in the order of their failure, the last copy of each, with what replays did to them."""
        letters = [self._joined(copies[-1]) for copies in self._copies.values()]
        return iter(sorted(letters, key=lambda letter: (letter.entry.failed_at, letter.entry.key)))

    def copies(self, key: str) -> list[Letter]:
        """The letters of one record, the oldest first."""
        return self._copies[key]

    def entries(self) -> Iterator[Entry]:
        """What the index holds of them, the newest first."""
        return (letter.entry for letter in reversed(list(self)))

    def audits(self) -> list[Audit]:
        """The replays that wrote notes, the newest first."""
        return sorted(self._audits.values(), key=lambda audit: (audit.at, audit.name), reverse=True)

    def carried(self, cuts: dict[int, int]) -> dict[int, list[Step]]:
        """By partition, what notes say of letters that stay, and what would go with the notes."""
        going = set(self.below(cuts))
        steps: dict[int, list[Step]] = defaultdict(list)
        for letter in self:
            if letter.entry.replays and letter.entry.key not in going:
                entry = letter.entry
                steps[letter.partition].append(Step([], entry.key, entry.origin, entry.replays))
        return steps

    def below(self, cuts: dict[int, int]) -> Iterable[str]:
        """The keys of the letters that lie wholly below these offsets."""
        for key, copies in self._copies.items():
            if all(copy.offset < cuts.get(copy.partition, 0) for copy in copies):
                yield key

    def _note(self, note: Note, partition: int) -> None:
        self.notes += 1
        for step in note.steps:
            self._replayed.update((partition, offset) for offset in step.offsets)
            self.origins[step.key] = step.origin, step.number
        replayed = sum(bool(step.offsets) for step in note.steps)
        if not replayed:
            return  # written by a purge, for letters that stay: how often their record was replayed
        before = self._audits.get(note.replay)
        count = replayed + (before.count if before else 0)
        self._audits[note.replay] = Audit(
            name=note.replay, action="replay", at=note.at, by=note.by, filter=note.filter, count=count
        )

    def _joined(self, letter: Letter) -> Letter:
        origin, replays = self.origins.get(letter.entry.key, ("", 0))
        replayed = (letter.partition, letter.offset) in self._replayed
        if not (replayed or replays):
            return letter
        return replace(letter, entry=replace(letter.entry, replayed=replayed, origin=origin, replays=replays))
