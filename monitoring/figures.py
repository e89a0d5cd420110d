"""The table in docs/metrics.md: `python -m monitoring.figures` writes it anew."""

from __future__ import annotations

from pathlib import Path

from streamer.metrics import ALL, Description, described

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- figures: python -m monitoring.figures -->\n", "<!-- end of figures -->\n"


def table() -> str:
    """A row for each figure, in the order of the code."""
    rows = [_row(description) for kind in ALL for _, description in described(kind)]
    return "\n".join(["| name | type | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def page(text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _row(description: Description) -> str:
    kind = "gauge" if description.kind in ("age", "info") else description.kind
    labels = ", ".join(f"`{label}`" for label in description.labels)
    return f"| `{description.shown_as}` | {kind} | {labels} | {description.help} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
