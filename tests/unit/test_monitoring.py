"""What watches streamer agrees with what streamer shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import dashboards, figures
from streamer.metrics import ALL, described

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))

UNITS = ("seconds", "bytes", "records", "partitions", "tokens", "texts", "ratio", "watts", "celsius", "flops")


# Of use to those who look closer, and shown nowhere: sums of what is.
UNSEEN = {
    "streamer_batches_total",
    "streamer_texts_total",
    "streamer_group_member",
    "streamer_device_waiting_seconds",
}


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


def promtool(*arguments: str | Path) -> str:
    """What promtool says; it comes with Debian's package `prometheus`, and .ci/run installs that."""
    if shutil.which("promtool") is None:
        pytest.fail("promtool is not on PATH: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_and_the_configuration_are_sound() -> None:
    promtool("check", "rules", "--lint-fatal", *RULES)
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_each_trouble_raises_its_alerts_and_no_others() -> None:
    tests = PROMETHEUS / "tests" / "alerts.yml"
    promtool("test", "rules", tests)
    raised = set(re.findall(r"Streamer[A-Z]\w+", tests.read_text("utf-8")))
    assert raised == {alert["alert"] for alert in alerts()}, "every alert is tested"


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text("utf-8"))["groups"]
    return list(group["rules"])


def test_what_is_inhibited_exists() -> None:
    text = (PROMETHEUS / "inhibit.yml").read_text("utf-8")
    named = set(re.findall(r"Streamer[A-Z]\w+", text))
    assert named and named <= {alert["alert"] for alert in alerts()}
    for rule in yaml.safe_load(text)["inhibit_rules"]:
        assert {"namespace", "job"} <= set(rule["equal"]), "one job does not silence another"


def test_every_alert_says_what_to_do() -> None:
    for alert in alerts():
        words = re.sub(r"(?<!^)([A-Z])", r"-\1", alert["alert"]).lower()
        assert alert["annotations"]["runbook"] == f"docs/operations.md#alert-{words}"
        assert alert["labels"]["severity"] in {"critical", "warning"}


def test_rules_ask_for_what_there_is() -> None:
    shown = {description.shown_as: description.kind for kind in ALL for _, description in described(kind)}
    for path in [*RULES, *dashboards.FOLDER.glob("*.json")]:
        asked = set(re.findall(r"(?<!:)\bstreamer_\w+", path.read_text("utf-8")))
        assert asked and {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} - shown.keys() == set()


def test_what_is_recorded_is_what_is_asked_for() -> None:
    names = r"\b(?:job|instance):streamer_\w+:\w+"
    asked = {
        name
        for path in [*RULES, *dashboards.FOLDER.glob("*.json")]
        for name in re.findall(names, re.sub(r"record: \S+", "", path.read_text("utf-8")))
    }
    recorded = set(
        re.findall(rf"record: ({names})", (PROMETHEUS / "rules" / "recording.yml").read_text("utf-8"))
    )
    assert asked == recorded


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_a_dashboard_is_what_the_code_says(name: str) -> None:
    written = (dashboards.FOLDER / f"{name}.json").read_text("utf-8")
    assert dashboards.written(name) == written, "write it anew: python -m monitoring.dashboards"


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_panels_have_names_and_places_of_their_own(name: str) -> None:
    panels = dashboards.dashboard(name)["panels"]
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_every_figure_is_on_a_dashboard_or_in_an_alert() -> None:
    everywhere = "".join(path.read_text("utf-8") for path in [*RULES, *dashboards.FOLDER.glob("*.json")])
    shown = {description.shown_as for kind in ALL for _, description in described(kind)}
    unseen = {name for name in shown if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", everywhere)}
    assert unseen == UNSEEN
