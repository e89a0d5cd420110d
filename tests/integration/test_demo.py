"""`streamer demo`, run as a user runs it, without a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from streamer.embedded import display
from streamer.embedded.tally import count
from streamer.embedded.texts import DemoRecord, demo_records
from streamer.embedded.traffic import Place
from streamer.records import Coordinate, Result
from tests.servers import KafkaServer

COMMAND = [sys.executable, "-m", "streamer", "demo"]
# A model that costs little: these tests are about the demo, not about what it says of a text.
FAKE = {"STREAMER__MODEL__BACKEND": "fake", "STREAMER__FAKE__PER_TEXT_US": "200"}
ACCOUNT = re.compile(
    r"([\d,]+) published = ([\d,]+) scored \+ ([\d,]+) skipped as duplicates \+ ([\d,]+) dead"
)


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )


def account(output: str) -> list[int]:
    found = ACCOUNT.search(output)
    assert found, output
    return [int(number.replace(",", "")) for number in found.groups()]


def test_the_demo_scores_everything_with_the_shipped_model() -> None:
    done = demo("--count", "300")
    assert done.returncode == 0, done.stdout
    assert account(done.stdout) == [310, 300, 2, 8]
    for row in ("invalid_json", "invalid_type", "empty_text", "texts a second", "agreement, Chinese"):
        assert row in done.stdout
    shares = [float(share) for share in re.findall(r"([\d.]+)% of", done.stdout)]
    assert len(shares) == 2
    assert min(shares) > 70, done.stdout
    assert "check --config config/streamer.yaml" in done.stdout


def test_the_demo_runs_on_a_real_kafka_and_redis_and_again(kafka: KafkaServer, redis_url: str) -> None:
    for _ in range(2):  # the second time there are records and results in the topics already
        done = demo(
            *("--count", "300", "--bootstrap-servers", kafka.bootstrap_servers, "--redis", redis_url),
            **FAKE,
        )
        assert done.returncode == 0, done.stdout
        assert account(done.stdout) == [310, 300, 2, 8]
        assert "could not be deleted" not in done.stdout


def test_a_worker_that_dies_early_is_shown_with_its_last_words() -> None:
    done = demo("--redis", "redis://127.0.0.1:1/0", **FAKE)
    assert done.returncode == 3, done.stdout
    assert "exit code 3" in done.stdout
    assert "Traceback" not in done.stdout
    log = re.search(r"all of its log: (\S+)", done.stdout)
    assert log, done.stdout
    kept = Path(log[1])
    assert "Redis" in kept.read_text("utf-8")
    kept.unlink()


def test_a_kafka_that_is_not_there_is_said() -> None:
    done = demo("--bootstrap-servers", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1/0", **FAKE)
    assert done.returncode == 3, done.stdout
    assert "127.0.0.1:1" in done.stdout
    assert "Traceback" not in done.stdout


def test_what_is_missing_is_said_and_nothing_is_taken_for_a_duplicate() -> None:
    records = list(demo_records(20, seed=1))
    published = {Place(0, offset): record for offset, record in enumerate(records)}
    places = {record.id: place for place, record in reversed(published.items()) if record.label}
    results = {place: result_of(published[place], place) for place in places.values()}
    dead = {place: record.reason for place, record in published.items() if record.reason}
    complete = count(published, results, dead, {})
    assert complete.complete
    assert (complete.scored, complete.skipped, complete.dead.total(), complete.again) == (20, 1, 8, 0)
    assert sum(right for right, _ in complete.agreement.values()) == 20

    duplicated = {record.id for record in records if record.duplicate}
    lost = next(id for id in places if id not in duplicated)
    del results[places[lost]], dead[next(iter(dead))]
    twice = next(iter(results))
    tally = count(published, results, dead, {twice: 1})
    assert (tally.scored, tally.skipped, tally.dead.total(), tally.again) == (19, 1, 7, 1)
    assert not tally.complete
    assert "NOT every record" in display.account(tally)
    assert lost in display.account(tally)
    assert "a broken record (invalid_json)" in display.account(tally)


def result_of(record: DemoRecord, place: Place) -> Result:
    source = Coordinate("texts.in", place.partition, place.offset, 0)
    return Result(record.id, record.label, 0.9, {}, "model", "1", source, place.offset)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "starting Kafka"),
        (signal.SIGINT, "Kafka at"),
        (signal.SIGINT, "scoring:"),
        (signal.SIGTERM, "Kafka at"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupt_leaves_nothing_behind(number: signal.Signals, line: str, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    # Slow enough to be in the middle of its work when the signal comes; temporary files where we see them.
    slow = {**FAKE, "STREAMER__FAKE__PER_TEXT_US": "5000", "MARK": mark, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        COMMAND, env={**os.environ, **slow}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        assert process.stdout is not None
        for said in process.stdout:
            if said.startswith(line):
                break
        assert processes_with(mark)
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    # The guards' children may be a moment behind the demo; nothing is left to end them but themselves.
    deadline = time.monotonic() + 10
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert list(tmp_path.iterdir()) == []


def test_serve_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    variables = {**os.environ, **FAKE, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*COMMAND, "--count", "50", "--serve"],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = iter(process.stdout)
        export = next(line for line in said if "export STREAMER__KAFKA__BOOTSTRAP_SERVERS=" in line)
        publish(export.strip().rpartition("=")[2], b'{"id": "from-outside", "text": "crisp and sweet"}')
        assert any("from-outside" in line for line in said)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert list(tmp_path.iterdir()) == []


def publish(bootstrap_servers: str, value: bytes) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce("texts.in", value)
    assert producer.flush(10) == 0


def processes_with(mark: str) -> list[str]:
    """The command lines of the processes that have `mark` in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environment.read_bytes():
                found.append(environment.with_name("cmdline").read_text().replace("\0", " "))
        except OSError:  # gone meanwhile, or not ours
            continue
    return found
