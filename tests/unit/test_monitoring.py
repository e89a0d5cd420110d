"""What watches streamer agrees with what streamer shows."""

from __future__ import annotations

import re

from monitoring import figures
from streamer.metrics import ALL, described

UNITS = ("seconds", "bytes", "records", "partitions", "tokens", "texts", "ratio", "watts", "celsius", "flops")


def test_the_table_of_figures_is_what_the_code_says() -> None:
    text = figures.PAGE.read_text("utf-8")
    assert figures.page(text) == text, "write it anew: python -m monitoring.figures"


def test_names_follow_the_conventions_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming: base units, `_total` for counters and nothing else."""
    shown = [description for kind in ALL for _, description in described(kind)]
    assert len({description.name for description in shown}) == len(shown)
    for description in shown:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", description.name)
        assert not description.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert description.help.endswith(".")
        if description.kind in ("histogram", "age"):
            assert description.name.endswith(UNITS)
        if description.kind == "info":
            assert description.name.endswith("_info")
