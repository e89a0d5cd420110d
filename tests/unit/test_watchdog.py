"""A process that hangs ends, with a dump of its threads and exit code 6; one that is stopped does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from streamer.metrics import Metrics
from streamer.watchdog import Watchdog

WORKER = """
import sys, time
from streamer.metrics import Metrics
from streamer.watchdog import Watchdog

metrics = Metrics()
def the_callback_that_never_returns():
    while True:
        time.sleep(1)

def work():
    print("ready", flush=True)
    for line in sys.stdin:
        metrics.polled_at += 1
    the_callback_that_never_returns()

with Watchdog(metrics, 0.8, interval=0.1):
    work()
"""


def start() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_hung_process_dumps_its_threads_and_exits_with_6() -> None:
    process = start()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 6
    assert "the_callback_that_never_returns" in errors and "Thread 0x" in errors
    assert "no step for 0.8 s" in errors


def test_a_process_that_was_stopped_is_not_taken_for_hung() -> None:
    process = start()
    assert process.stdin is not None
    process.send_signal(signal.SIGSTOP)
    resumed = threading.Timer(1.5, process.send_signal, [signal.SIGCONT])
    resumed.start()
    resumed.join()
    for _ in range(10):
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()


def test_steps_keep_it_quiet_and_it_ends_with_its_block() -> None:
    metrics, barked = Metrics(), threading.Event()
    with Watchdog(metrics, 0.4, interval=0.02, end=barked.set):
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            metrics.polled_at = time.monotonic()
        assert not barked.is_set()
        assert barked.wait(10), "no step any more"
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
