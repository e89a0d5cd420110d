"""`python -m streamer.embedded`: the demo's reviews as JSON lines, until nobody reads them any more.

python -m streamer.embedded | streamer publish - --format jsonl --rate 20
"""

from __future__ import annotations

import os
import sys
from itertools import count

from streamer.embedded.texts import demo_records

A_ROUND = 10_000  # reviews; each round draws others, under ids of its own

try:
    for seed in count(1):
        for record in demo_records(A_ROUND, seed, f"sample-{seed}"):
            if not record.reason:
                sys.stdout.write(record.value.decode() + "\n")
except (BrokenPipeError, KeyboardInterrupt):
    # Python must not try to flush the pipe again at its exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
