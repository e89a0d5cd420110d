"""The runbook: what leads to it finds its place there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from streamer.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "monitoring/prometheus/rules/alerts.yml").read_text("utf-8"))[
        "groups"
    ]
    for rule in group["rules"]
]


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub and most renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_has_its_section(alert: dict[str, dict[str, str]]) -> None:
    file, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert file == "docs/operations.md"
    assert anchor in anchors(PAGE)


def test_no_section_outlives_its_alert() -> None:
    runbooks = {alert["annotations"]["runbook"].partition("#")[2] for alert in ALERTS}
    assert {anchor for anchor in anchors(PAGE) if anchor.startswith("alert-")} == runbooks


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        page = ROOT / "docs" / file if file else ROOT / "docs/operations.md"
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text("utf-8")), target


def test_the_commands_it_names_exist() -> None:
    named = set(re.findall(r"(?:`|^)streamer ([a-z]+)", PAGE, re.MULTILINE))
    assert named and named <= set(COMMANDS)


def test_no_figure_was_left_for_later() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    assert [page.name for page in pages if "@@" in page.read_text("utf-8")] == []
