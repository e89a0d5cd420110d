"""Was every record accounted for? The invariants of the design, checked against what was written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from streamer.records import Record
from tests.engine.rig import Rig, id_of


def is_good(record: Record) -> bool:
    value = record.value or b""
    return value.startswith(b"{") and b"poison" not in value and b"refused" not in value


def check_accounts(rig: Rig, *, explained: Collection[tuple[int, int]] = ()) -> None:
    """Invariants 1 to 3 at rest; only what is `explained` may have been written more than once."""
    assert rig.log.committed == rig.ends, "all is committed"
    by_id: dict[str, list[Record]] = defaultdict(list)
    for record in (record for records in rig.log.records.values() for record in records):
        if record.value is not None:
            by_id[id_of(record)].append(record)
    scored, buried = Counter(rig.scored()), Counter(rig.buried())
    results = Counter(rig.ids)
    for id, records in by_id.items():
        places = {(record.partition, record.offset) for record in records}
        deaths = places & buried.keys()
        if is_good(records[0]):
            assert results[id] >= 1, f"{id} is lost"
            assert not deaths, f"{id} is dead, and nothing is wrong with it"
            assert len(places & scored.keys()) == 1, f"{id} was scored at several places"
        else:
            assert deaths and not results[id], f"{id} is bad and not in the dead letters, or not only there"
    assert results.keys() <= by_id.keys()
    twice = {at for at, count in [*scored.items(), *buried.items()] if count > 1}
    assert twice <= set(explained), f"{twice - set(explained)} written twice for no reason"
    check_order(rig.scored())
    check_order(rig.buried())


def check_order(written: list[tuple[int, int]]) -> None:
    """Per partition, records were written for the first time in the order in which they came."""
    newest: dict[int, int] = {}
    seen: set[tuple[int, int]] = set()
    for partition, offset in written:
        if (partition, offset) not in seen:
            assert offset > newest.get(partition, -1), f"{partition}@{offset} was overtaken"
            newest[partition] = offset
            seen.add((partition, offset))
