"""Every case, and the table that the suite writes of itself: `make faults` puts it into docs/faults.md."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

from tests.faults.world import Account

# Elsewhere: what the tests of exactly-once, of dead letters and of the GPU show.
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
    "11": "lost reply on a commit",
    "14": "Redis killed, restarted empty",
    "15": "Redis frozen or slow",
    "16": "Redis out of memory, read-only, evicting",
    "17": "lost reply on a claim",
    "18": "duplicates in a window, across partitions and workers",
    "19": "a record that makes its batch raise",
    "19b": "a record that kills the process",
    "20": "bad input and random values",
    "21": "compression bombs of 12 MB",
    "22": "a dead letter too large for its topic",
    "24": "transaction markers, retention past the commit",
    "25": "out of device memory at random sizes",
}
T = TypeVar("T")
LONG = os.environ.get("STREAMER_FAULTS") == "long"
_accounts: dict[str, list[Account]] = defaultdict(list)


def runs(short: T, long: T) -> T:
    """How often, or which, in `make test` and in `make faults`."""
    return long if LONG else short


def enter(case: str, account: Account) -> None:
    _accounts[case].append(account)


def rows() -> list[str]:
    """The table's lines, in Markdown."""
    lines = [
        "| case | fault | runs | faults | records | lost | duplicated | without cause | progress |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case, name in CASES.items():
        accounts = _accounts.get(case)
        if accounts:
            sums = [
                len(accounts),
                sum(account.faults for account in accounts),
                sum(account.records for account in accounts),
                sum(len(account.lost) for account in accounts),
                sum(account.duplicated for account in accounts),
                sum(len(account.unexplained) for account in accounts),
            ]
            slowest = max(account.progress for account in accounts)
            cells = " | ".join(f"{number:,}" for number in sums)
            lines.append(f"| {case} | {name} | {cells} | {slowest:.1f} |")
    return lines


def write(path: Path, seconds: float, failed: int) -> None:
    """Replace the page with what this run has shown."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    verdict = "all passed" if not failed else f"{failed} failed"
    author = "`make faults`" if LONG else "The short version of `make test`"
    machine = f"{os.cpu_count()} cores of {platform.machine()}"
    page = [
        "# What streamer survives",
        "",
        "Each case injects its faults into workers that run the real command against a real Kafka and a real",
        "Redis. An independent read_committed consumer reads both topics while they work and afterwards.",
        "*Lost* counts records that ended in neither topic, or in the wrong one. *Duplicated* counts copies",
        "beyond the first; *without cause* are those that no injected fault explains. *Progress* is the",
        "longest time from the end of a fault to the next result in seconds, restart and rebalance included.",
        "[The tests](../tests/faults) hold what else each case must show.",
        "",
        f"{author} wrote this on {day}: {verdict}, {seconds:.0f} s on {machine}.",
        "",
        *rows(),
        "",
    ]
    path.write_text("\n".join(page), "utf-8")
