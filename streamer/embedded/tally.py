"""What became of every record that the demo published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.embedded.texts import LABELS, DemoRecord
from streamer.embedded.traffic import Place
from streamer.records import Result


@dataclass
class Tally:
    """The account of a run. A record is at one place in it."""

    published: int = 0
    scored: int = 0
    skipped: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    missing: list[DemoRecord] = field(default_factory=list)
    # Results and dead letters beyond the first of a record: at-least-once allows them after a crash only.
    again: int = 0
    unexpected: list[str] = field(default_factory=list)
    agreement: dict[str, tuple[int, int]] = field(default_factory=dict)
    foreign_labels: set[str] = field(default_factory=set)
    texts_a_second: float | None = None

    @property
    def complete(self) -> bool:
        return not self.missing and not self.unexpected


def count(
    published: Mapping[Place, DemoRecord],
    results: Mapping[Place, Result],
    dead: Mapping[Place, str],
    again: Mapping[Place, int],
) -> Tally:
    """Compare what was published with what came out, record by record."""
    tally = Tally(published=len(published))
    results = {place: result for place, result in results.items() if place in published}
    scored_ids = {result.id for result in results.values()}
    for place, record in published.items():
        reason = dead.get(place, "")
        if place in results:
            tally.scored += 1
            if record.reason:
                tally.unexpected.append(f"a broken record was scored (expected {record.reason})")
        elif reason:
            tally.dead[reason] += 1
            if reason != record.reason:
                tally.unexpected.append(f"{record.id or 'a broken record'} died of {reason}")
        elif record.id in scored_ids:
            # Nothing came out for this record, and its id has a result: a duplicate, skipped as it should be.
            tally.skipped += 1
        else:
            tally.missing.append(record)
        tally.again += again.get(place, 0)
    tally.agreement = _agreement(published, results, tally.foreign_labels)
    tally.texts_a_second = _speed(results)
    return tally


def _agreement(
    published: Mapping[Place, DemoRecord], results: Mapping[Place, Result], foreign: set[str]
) -> dict[str, tuple[int, int]]:
    """By language: how many results say what the author of the text meant, and of how many."""
    right: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    for place, result in results.items():
        record, label = published[place], result.label.casefold()
        all_of[record.language] += 1
        right[record.language] += label == record.label
        if label not in LABELS:
            foreign.add(result.label)
    return {language: (right[language], number) for language, number in sorted(all_of.items(), reverse=True)}


def _speed(results: Mapping[Place, Result]) -> float | None:
    """Texts a second by the worker's clock, from its first batch to its last; None when there is only one."""
    times = sorted(result.processed_at for result in results.values())
    if not times or times[0] == times[-1]:
        return None
    after_first = sum(time > times[0] for time in times)
    return after_first / ((times[-1] - times[0]) / 1000)
