"""The command line of `streamer dlq`, without servers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamer import cli
from streamer.cli import dlq
from streamer.cli.dlq.options import name_of_run, who
from streamer.cli.dlq.reading import progress

HEAVY = ("torch", "transformers", "redis", "confluent_kafka", "rich")


@pytest.mark.parametrize("action", dlq.MODULES)
def test_each_action_has_a_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["dlq", action, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--config" in shown and "--json" in shown
    if action in ("list", "stats", "replay", "purge"):
        assert all(
            word in shown for word in ("--reason", "--since", "--until", "--id", "--partition", "--error")
        )
    if action in ("replay", "rebuild", "purge"):
        assert "--dry-run" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["list", "--since", "yesterday"],
        ["list", "--until", "2w"],
        ["list", "--max", "0"],
        ["list", "--status", "lost"],
        ["list", "--partition", "first"],
        ["show"],
        ["show", " "],
        ["list", "--partition", "-1"],
        ["list", "--max", "all"],
        ["list", "--since", "999999999d"],
        ["list", "--since", "0001-01-01"],
        ["list", "--id", ""],
        ["stats", "--error", ""],
        ["replay", "--rate", "fast"],
        ["replay", "--rate", "0"],
        ["replay", "--max-replays", "0"],
        ["purge", "--rate", "1"],
    ],
)
def test_a_wrong_command_line_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["dlq", *arguments])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert "error: " in err and "invalid " not in err.replace("invalid choice", ""), "in words of our own"


def test_nothing_heavy_is_imported_for_a_help() -> None:
    code = (
        "import sys; from streamer.cli import main\n"
        "try: main(['dlq', 'replay', '--help'])\nexcept SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_what_the_audit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of_run(1_750_000_000_000).startswith("20250615T150640Z-")
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid 1234")))
    user, _, host = who().partition("@")
    assert user.isdecimal() and host


def test_a_bar_on_a_terminal_and_none_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with progress("replaying", 10) as advance:
            advance(4)
        out, err = capsys.readouterr()
        assert (out, "replaying" in err) == ("", terminal)
