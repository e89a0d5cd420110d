"""For how long a device was busy: its batches may overlap, and time counts once."""

from __future__ import annotations

KEPT = 256  # stretches: more than the gaps that fall into one long batch


class Occupancy:
    """The union of stretches of time.

    >>> device = Occupancy()
    >>> device.add(0.0, 2.0), device.add(1.0, 3.0), device.add(5.0, 6.0)
    (2.0, 1.0, 1.0)
    """

    __slots__ = ("_stretches",)

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float]] = []  # none touches another, the newest last

    def add(self, start: float, end: float) -> float:
        """Seconds of this stretch that no other had. They come by their ends, more or less."""
        new, first, last = end - start, start, end
        while self._stretches and self._stretches[-1][1] > first:
            other_start, other_end = self._stretches.pop()
            new -= max(0.0, min(end, other_end) - max(start, other_start))
            first, last = min(first, other_start), max(last, other_end)
        self._stretches.append((first, last))
        del self._stretches[:-KEPT]
        return new
