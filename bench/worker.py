"""The real worker with a stopwatch around each verb: `python -m bench.worker CONFIG REPORT`.

Writes a JSON report of seconds by verb, wall and CPU, measured inside the process.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from streamer.app import build
from streamer.config import load

VERBS = ("intake", "dispatch", "settle", "commit")
IDLE = 2.0  # seconds without work that end the run


def main(config: str, report: str) -> None:
    engine = build(load(Path(config), {}))
    seconds = dict.fromkeys(VERBS, 0.0)

    def timed(verb: str) -> Callable[[], None]:
        call: Callable[[], None] = getattr(engine, verb)

        def run() -> None:
            started = time.thread_time()
            call()
            seconds[verb] += time.thread_time() - started

        return run

    for verb in VERBS:
        setattr(engine, verb, timed(verb))
    engine.run(exit_when_idle=IDLE)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: a child starts with what its parent had.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    Path(report).write_text(
        json.dumps(
            {
                "cpu_us_per_record_by_verb": {
                    verb: round(1e6 * spent / max(1, engine.metrics.records), 2)
                    for verb, spent in seconds.items()
                },
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
                "records": engine.metrics.records,
                "batches": engine.metrics.batches,
                "peak_mib": int(peak[1]) // 1024 if peak else None,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
