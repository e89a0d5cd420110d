"""Every case, and the table that the suite writes of itself: `make faults` puts it into docs/faults.md."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TypeVar

from streamer import __version__
from tests.faults.world import Account

# Elsewhere: what the tests of dead letters and of the GPU show.
CASES: dict[str, str] = {
    "1": "kill -9 at random",
    "2": "SIGTERM in a slow batch",
    "3": "crash at each point of the line",
    "4": "SIGSTOP past the session time-out, SIGCONT",
    "5": "workers join and leave, classic protocol",
    "5b": "workers join and leave, consumer protocol",
    "6": "a batch longer than max.poll.interval.ms",
    "7": "the device hangs for ever",
    "7b": "the engine hangs for ever",
    "8": "broker killed and restarted",
    "9": "broker frozen",
    "10": "network cut, slow, half-open each way",
    "11": "lost reply on a commit, or on the end of a transaction",
    "12": "transaction time-out in a batch",
    "13": "one transactional.id twice",
    "14": "Redis killed, restarted empty",
    "15": "Redis frozen or slow",
    "16": "Redis out of memory, read-only, evicting",
    "17": "lost reply on a claim",
    "18": "duplicates in a window, across partitions and workers",
    "19": "a record that makes its batch raise",
    "19b": "a record that kills the process",
    "20": "bad input and random values",
    "21": "compression bombs of 300 MB, damaged batches",
    "22": "dead-letter topic gone, denied, or too small",
    "23": "a replay killed again and again, and one killed inside a chunk",
    "24": "transaction markers, compaction, retention past the commit",
    "25": "out of device memory at random sizes",
}
Row = tuple[str, str]  # the case and the delivery
T = TypeVar("T")
LONG = os.environ.get("STREAMER_FAULTS") == "long"
HEAD = [
    "| case | fault | delivery | runs | faults | records | lost | twice | without cause | progress | of |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
]
_accounts: dict[Row, list[Account]] = defaultdict(list)
_failed: set[Row] = set()


def runs(short: T, long: T) -> T:
    """How often, or which, in `make test` and in `make faults`."""
    return long if LONG else short


def enter(case: str, account: Account) -> None:
    _accounts[_row(case, account.delivery)].append(account)


def fail(case: str, delivery: str) -> None:
    """A test of this case has failed, perhaps before it had an account."""
    _failed.add(_row(case, delivery))


def _row(case: str, delivery: str) -> Row:
    return case, delivery.replace("_", " ")


def rows(page: str) -> list[str]:
    """The table's lines in Markdown: of this run, and of cases that it left out what the page says."""
    lines: dict[Row, str] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == HEAD[0].count("|") + 1 and cells[1] in CASES:
            lines[cells[1], cells[3]] = line
    for row in {*_accounts, *_failed}:
        lines[row] = _line(row, _accounts.get(row, []))
    order = list(CASES)
    return HEAD + [lines[row] for row in sorted(lines, key=lambda row: (order.index(row[0]), row[1]))]


def _line(row: Row, accounts: list[Account]) -> str:
    case, delivery = row
    sums = [
        len(accounts),
        sum(account.faults for account in accounts),
        sum(account.records for account in accounts),
        sum(len(account.lost) for account in accounts),
        sum(account.duplicated for account in accounts),
        sum(len(account.unexplained) for account in accounts),
    ]
    slowest = max((account.progress for account in accounts), default=0.0)
    cells = " | ".join(f"{number:,}" for number in sums)
    mark = ", **failed**" if row in _failed else ""
    return f"| {case} | {CASES[case]} | {delivery} | {cells} | {slowest:.1f} | {_version()}{mark} |"


@cache
def _version() -> str:
    """The commit that was tested, `-dirty` if there was more."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or __version__


def write(path: Path, seconds: float, failed: int) -> None:
    """Bring the page up to date with what this run has shown."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    verdict = "all passed" if not failed else f"{failed} failed"
    author = "`make faults`" if LONG else "The short version of `make test`"
    machine = f"{os.cpu_count()} cores of {platform.machine()}"
    page = [
        "# What streamer survives",
        "",
        "Each case injects its faults into workers that run the real command against a real Kafka and a real",
        "Redis. An independent read_committed consumer reads both topics while they work and afterwards.",
        "*Lost* counts records that ended in neither topic, or in the wrong one. *Twice* counts copies",
        "beyond the first; *without cause* are those that no injected fault explains: at least once, a fault",
        "may repeat what it met between its publication and its mark; exactly once, nothing. *Progress* is",
        "the longest time from the end of a fault to the next result, in seconds, restart and rebalance",
        "included. [The tests](../tests/faults) hold what else each case must show.",
        "",
        f"{author} wrote this on {day}: {verdict}, {seconds:.0f} s on {machine}.",
        "A run of a part of the suite replaces the rows of that part; *of* is the commit that was tested.",
        "",
        *rows(path.read_text("utf-8") if path.exists() else ""),
        "",
    ]
    path.write_text("\n".join(page), "utf-8")
