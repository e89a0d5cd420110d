"""What the demo shows: a live picture on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streamer.embedded.tally import Tally

COLOURS = {"positive": "green", "negative": "red"}
LANGUAGES = {"zh": "Chinese", "en": "English"}
LINES = 8
# Without a terminal: a line at most this often when there is news, and at least this often, in seconds.
INTERVAL, SILENCE = 2.0, 15.0


@dataclass(frozen=True, slots=True)
class Scored:
    """A result as it is shown."""

    text: str
    label: str
    score: float


@dataclass(slots=True)
class Counters:
    total: int
    published: int = 0
    committed: int = 0
    scored: int = 0
    dead: int = 0
    right: int = 0
    stage: str = "starting"


class Display:
    """Shows the counters and the newest results for as long as the `with` block lasts."""

    def __init__(self, console: Console, counters: Counters) -> None:
        self._console = console
        self._counters = counters
        self._recent: deque[Scored] = deque(maxlen=LINES)
        self._printed = ""
        self._printed_at = 0.0
        self._live: Live | None = None
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self._published = self._bars.add_task("published", total=counters.total)
        self._committed = self._bars.add_task("committed", total=counters.total)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._picture)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._print(time.monotonic())

    def show(self, new: Sequence[Scored]) -> None:
        self._recent.extend(new)
        counters = self._counters
        self._bars.update(self._published, completed=counters.published)
        self._bars.update(self._committed, completed=counters.committed)
        now = time.monotonic()
        news = self._status() != self._printed
        if self._live is None and now >= self._printed_at + (INTERVAL if news else SILENCE):
            self._print(now)

    def _status(self) -> str:
        counters = self._counters
        return (
            f"{counters.stage}: {counters.published:,} of {counters.total:,} published, "
            f"{counters.scored:,} scored, {counters.dead} dead, {counters.committed:,} committed"
        )

    def _print(self, now: float) -> None:
        self._printed, self._printed_at = self._status(), now
        self._console.print(self._printed, highlight=False)
        for scored in list(self._recent)[-2:]:
            self._console.print(Text("  ").append_text(line(scored)), no_wrap=True, overflow="ellipsis")
        self._recent.clear()

    def _picture(self) -> RenderableType:
        counters = self._counters
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(width=8, no_wrap=True)
        rows.add_column(width=5, no_wrap=True)
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for scored in self._recent:
            label = Text(scored.label, COLOURS.get(scored.label.casefold(), ""))
            rows.add_row(label, f"{scored.score:.3f}", Text(scored.text))
        for _ in range(LINES - len(self._recent)):
            rows.add_row("", "", "")
        share = f" · agreement {counters.right / counters.scored:.1%}" if counters.scored else ""
        status = f"{counters.stage} · {counters.scored:,} scored · {counters.dead} dead{share}"
        return Group(self._bars, Panel(rows, title="sentiment.out", title_align="left", subtitle=status))


def line(scored: Scored) -> Text:
    """One result on one line."""
    label = Text(f"{scored.label:<8}", COLOURS.get(scored.label.casefold(), ""))
    return label.append(f" {scored.score:.3f} ", "default").append(scored.text, "default")


def table(tally: Tally) -> Table:
    """The account of the run."""
    rows = Table(show_header=False, title="the run", title_justify="left")
    rows.add_column()
    rows.add_column(justify="right")
    rows.add_row("published", f"{tally.published:,}")
    rows.add_row("scored", f"{tally.scored:,}")
    rows.add_row("skipped as duplicates", f"{tally.skipped:,}")
    rows.add_row("dead letters", f"{tally.dead.total():,}")
    for reason, number in sorted(tally.dead.items()):
        rows.add_row(f"  {reason}", f"{number:,}", style="dim")
    if tally.again:
        rows.add_row("came twice", f"{tally.again:,}", style="yellow")
    speed = f"{tally.texts_a_second:,.0f}" if tally.texts_a_second else "too few batches to say"
    rows.add_row("texts a second", speed)
    for language, (right, number) in tally.agreement.items():
        name = LANGUAGES.get(language, language)
        rows.add_row(f"agreement, {name}", f"{right / number:.1%} of {number:,}")
    return rows


def account(tally: Tally) -> str:
    """The sentence that says whether every record is accounted for, and what is missing when not."""
    dead = tally.dead.total()
    sum_of = f"{tally.scored:,} scored + {tally.skipped:,} skipped as duplicates + {dead:,} dead"
    if tally.complete:
        return f"Every record is accounted for: {tally.published:,} published = {sum_of}."
    lines = [f"NOT every record is accounted for: {tally.published:,} published, {sum_of}."]
    if tally.missing:
        names = [record.id or f"a broken record ({record.reason})" for record in tally.missing]
        lines.append(f"missing ({len(names):,}): {', '.join(names[:10])}{', ...' if names[10:] else ''}")
    lines += [f"unexpected: {what}" for what in tally.unexpected[:10]]
    return "\n".join(lines)
