"""The process dies at every point of the line; the next one finishes the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from streamer.limits import Limits
from tests.engine.accounts import check_accounts
from tests.engine.parts import Crash, LateSink, PromptSink
from tests.engine.rig import POINTS, Rig

# Between these two a record is in the results and nobody knows: there alone may it be written twice.
WRITTEN_UNMARKED = {"publish:inside", "publish:after", "mark:before", "mark:inside"}


def crash_at(point: str, time: int) -> Callable[[str], None]:
    """A hook that ends the process when the line comes to `point` for the given time."""
    seen: Counter[str] = Counter()

    def hook(at: str) -> None:
        seen[at] += 1
        if at == point and seen[at] == time:
            raise Crash(f"{point}, {time}")

    return hook


def mixed(sink: type[PromptSink], limits: Limits = Limits()) -> Rig:  # noqa: B008 - frozen
    """Good records, bad ones of each kind, duplicates and tombstones over two partitions."""
    rig = Rig(partitions=2, sink=sink, max_texts=4, max_records=8, limits=limits)
    for number in range(40):
        partition = number % 2
        match number % 10:
            case 3:
                rig.log.append(b"not JSON", partition=partition)
            case 4:
                rig.log.append(None, partition=partition)
            case 5:
                rig.send("poison", f"p{number}", partition)
            case 6:
                rig.send("good", "again", partition)
            case 7:
                rig.send("refused", f"r{number}", partition)
            case _:
                rig.send("good " * (1 + number % 3), f"g{number}", partition)
    return rig


@pytest.mark.parametrize("sink", [PromptSink, LateSink])
@pytest.mark.parametrize("time", [1, 2, 4])
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_loses_nothing_and_repeats_only_what_was_written_and_not_marked(
    point: str, time: int, sink: type[PromptSink]
) -> None:
    rig = mixed(sink)
    rig.on = crash_at(point, time)
    with pytest.raises(Crash):
        rig.run()
    rig.on = lambda at: None
    unmarked = rig.unmarked()
    rig.restart()
    rig.run()
    check_accounts(rig, explained=unmarked)


@pytest.mark.parametrize("point", [point for point in POINTS if point not in WRITTEN_UNMARKED])
def test_without_dead_letters_a_crash_elsewhere_repeats_nothing(point: str) -> None:
    rig = Rig(max_texts=4, max_records=8)
    for number in range(40):
        rig.send("good", str(number))
    rig.on = crash_at(point, 2)
    with pytest.raises(Crash):
        rig.run()
    rig.on = lambda at: None
    rig.restart()
    rig.run()
    assert rig.ids == [str(number) for number in range(40)]
    check_accounts(rig)


def test_a_crash_in_every_life_still_ends() -> None:
    # One record is alone on the device in each life: to a worker it looks like the one that kills.
    rig = mixed(PromptSink, Limits(max_attempts=1000))
    crashes = 0
    unmarked: set[tuple[int, int]] = set()
    for point in POINTS * 2:
        rig.on = crash_at(point, 1)
        rig.restart()
        try:
            rig.run()
        except Crash:
            crashes += 1
            unmarked |= rig.unmarked()
    rig.on = lambda at: None
    rig.restart()
    rig.run()
    assert crashes >= len(POINTS)
    check_accounts(rig, explained=unmarked)
