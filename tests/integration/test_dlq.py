"""Dead letters end to end: real Kafka and Redis, workers and replays as processes. Fault case 23."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial

import msgspec
import pytest
import redis

from streamer.records import Envelope
from tests.faults import table
from tests.faults.world import Account
from tests.integration.dlq import Desk, headers, state
from tests.integration.line import ROOT, Line, Reader, wait_until
from tests.servers.process import free_port

GOOD_NOW = {"max_bytes": 1_000_000}
TOO_STRICT = {"max_bytes": 200}  # a limit that is set too low: a fault of the system, that somebody repairs


def publish(line: Line, ids: range, size: int = 300) -> None:
    """Two good ones after each, so that the share of the dead stays below what stops a worker."""
    for number in ids:
        value = msgspec.json.encode({"id": f"r{number}", "text": "x" * size})
        line.publish(
            value, number % 2, [("traceparent", b"00-%032x-%016x-01" % (number + 1, 1)), ("n", None)]
        )
        for good in range(2):
            line.publish(msgspec.json.encode({"id": f"good-{number}-{good}", "text": "x"}), number % 2)
    line.flush()


def enter_replays(desk: Desk, letters: int, faults: int) -> None:
    """Case 23 in the table of tests/faults: what became of letters whose replay was killed."""
    results = desk.results()
    lost = [f"{letters - len(results)} of {letters}"] if len(results) < letters else []
    twice = results.total() - len(results)
    table.enter("23", Account(letters, faults, lost, twice, [], "at_least_once", 0.0))


def reached(running: subprocess.Popen[str], seen: Reader, goal: int) -> bool:
    return running.poll() is not None or seen.read() >= goal


# -- a replay, from death to result -----------------------------------------------------------------------


def test_of_200_replayed_one_dies_again_and_each_id_is_once_in_the_results(desk: Desk) -> None:
    line = desk.line
    line.config["input"] = TOO_STRICT
    publish(line, range(199))
    line.publish(b'{"text": 1, "junk": "' + b"y" * 300 + b'"}', 0)  # this one stays broken
    line.flush()
    desk.work()
    assert desk.index.counts() == {"too_large": 200}
    line.config["input"] = GOOD_NOW
    dry = desk.json("replay", "--dry-run")[0]
    assert (dry["selected"], dry["reasons"], dry["replayed"]) == (200, {"too_large": 200}, 0)
    assert desk.replayed() == {} and len(desk.read(line.dead_letters)) == 200, "a dry run writes nothing"

    done = desk.json("replay", "--reason", "too_large")[0]
    assert (done["selected"], done["replayed"], done["left"]) == (200, 200, {})
    desk.work()
    assert set(desk.results().values()) == {1}, "each id once"
    assert desk.results().keys() >= {f"r{number}" for number in range(199)}
    (again,) = desk.json("list", "--reason", "invalid_type")
    assert (again["replays"], again["status"]) == (1, "dead")
    assert again["origin"].startswith(f"{line.input}:0:")
    assert desk.json("stats")[0]["status"] == {"replayed": 200, "dead": 1}
    # Once more: only what died again goes, and it is counted.
    assert desk.json("replay")[0] | {"name": ""} == {
        "action": "replay",
        "name": "",
        "dry_run": False,
        "filter": "all",
        "selected": 1,
        "reasons": {"invalid_type": 1},
        "left": {"replayed": 200},
        "replayed": 1,
        "refused": [],
    }


def test_a_replay_is_the_record_as_it_came_with_its_origin_and_trace(desk: Desk) -> None:
    line = desk.line
    line.config["input"] = TOO_STRICT
    publish(line, range(2))
    desk.work()
    assert desk("replay")[0] == 0
    before = {message.partition(): message for message in desk.read(line.input) if message.offset() == 0}
    after = {m.partition(): m for m in desk.read(line.input) if "replay.origin" in headers(m)}
    for partition in (0, 1):
        old, new = before[partition], after[partition]
        assert (new.key(), new.value()) == (old.key(), old.value())
        found, kept = headers(new), headers(old)
        assert {name: found[name] for name in kept} == kept
        assert not any(name.startswith("dlq.") for name in found)
        assert found["replay.origin"] == f"{line.input}:{partition}:0"
        assert found["replay.number"] == "1"
        assert found["replay.timestamp"] == str(old.timestamp()[1])
    line.config["input"] = GOOD_NOW
    desk.work()
    results = [one for one in desk.read(line.output) if json.loads(one.value() or b"")["id"] in ("r0", "r1")]
    assert len(results) == 2
    for result in results:
        assert headers(result)["traceparent"].startswith("00-")
        assert headers(result)["replay.origin"] == f"{line.input}:{result.partition()}:0"


@pytest.mark.parametrize("id_from", [["content"], ["coordinate"], ["header", "coordinate"]])
def test_a_replay_passes_deduplication_wherever_the_id_comes_from(desk: Desk, id_from: list[str]) -> None:
    line = desk.line
    line.config["input"] = {"id_from": id_from, "max_bytes": 200}
    # Two of one content: the second is a duplicate of the first where the id is the content.
    for _ in range(2):
        line.publish(msgspec.json.encode({"text": "x" * 300}), 0)
    line.flush()
    desk.work()
    line.config["input"] = {"id_from": id_from}
    assert desk.json("replay")[0]["replayed"] == 2
    desk.work()
    once = "content" in id_from
    results = desk.results()
    assert results.total() == len(results) == (1 if once else 2)
    if id_from == ["header", "coordinate"]:
        assert set(results) == {f"{line.input}:0:0", f"{line.input}:0:1"}, "the first coordinate stays the id"


def test_a_claim_that_a_worker_could_not_give_back_does_not_swallow_the_replay(
    desk: Desk, redis_url: str
) -> None:
    line = desk.line
    line.config["input"] = TOO_STRICT
    publish(line, range(1))
    desk.work()
    line.config["input"] = GOOD_NOW
    # As after a worker that died between the dead letter and giving the claim back.
    publish(line, range(1, 2), size=10)
    desk.work()
    with redis.Redis.from_url(redis_url) as client:
        generation = bytes(client.hget(line.claims, "r1") or b"").rpartition(b":")[0].rpartition(b":")[0]
        assert generation
        client.hset(line.claims, "r0", generation + b":0:0")
    assert desk.json("replay")[0]["replayed"] == 1
    desk.work()
    assert (desk.results()["r0"], desk.results()["r1"]) == (1, 1)


# -- twice, killed, still failing -------------------------------------------------------------------------


def test_a_second_replay_replays_nothing(desk: Desk) -> None:
    desk.bury(50)
    assert desk.json("replay")[0]["replayed"] == 50
    second = desk.json("replay")[0]
    assert (second["selected"], second["replayed"], second["left"]) == (0, 0, {"replayed": 50})
    assert set(desk.replayed().values()) == {1}


@pytest.mark.slow
def test_killed_again_and_again_it_repeats_none_and_skips_none(desk: Desk) -> None:
    desk.bury(100, partition=0)
    desk.bury(100, partition=1)
    assert desk("rebuild")[0] == 0
    seen = desk.line.reader(desk.line.input)
    kills = 0
    for goal in (1, 50, 100, 150):
        running = desk.process("replay", "--rate", "50")
        wait_until(partial(reached, running, seen, goal), "some to be replayed")
        kills += running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.communicate()
    assert kills == 4
    last = desk.json("replay")[0]
    assert 0 < last["replayed"] < 200
    assert last["replayed"] + last["left"]["replayed"] == 200
    replayed = desk.replayed()
    assert len(replayed) == 200 and set(replayed.values()) == {1}
    # What the killed ones could not tell the index, the last one did: it says what the topic says.
    before = state(desk.index)
    assert desk("rebuild")[0] == 0
    assert state(desk.index) == before
    assert sum(audit.count for audit in before[2]) == 200
    desk.work()
    enter_replays(desk, 200, kills)
    assert set(desk.results().values()) == {1} and desk.results().total() == 200


@pytest.mark.parametrize(
    "point",
    [
        "Replay._write_notes",  # records are on the broker, no note of them: an open transaction
        "Shipper.commit",  # notes as well
        "_Books.note",  # committed, and nobody has told the index
    ],
)
def test_killed_inside_a_chunk(desk: Desk, point: str) -> None:
    desk.bury(60)
    assert desk("rebuild")[0] == 0
    name, method = point.split(".")
    code = f"""
import os, signal, sys
from streamer import cli
from streamer.cli.dlq.replay import Replay, _Books
from streamer.shipping import Shipper
calls, whole = 0, {name}.{method}
def die(*args):
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args)
{name}.{method} = die
cli.main(["dlq", "replay", "--rate", "20", "--config", {str(desk.config)!r}])
"""
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = desk.json("replay")[0]
    assert last["replayed"] == (0 if name == "_Books" else 20)
    replayed = desk.replayed()
    desk.work()
    enter_replays(desk, 60, 1)
    assert len(replayed) == 60 and set(replayed.values()) == {1}
    before = state(desk.index)
    assert desk("rebuild")[0] == 0
    assert state(desk.index) == before


def test_of_two_at_once_the_older_stops_and_no_record_goes_twice(desk: Desk) -> None:
    desk.bury(200)
    seen = desk.line.reader(desk.line.input)
    older = desk.process("replay", "--rate", "30")
    wait_until(lambda: seen.read() > 0, "the first chunk")
    newer = desk.json("replay")[0]
    _, err = older.communicate(timeout=60)
    assert older.returncode == 5
    assert "another replay of this group has taken over" in err and "Traceback" not in err
    assert newer["replayed"] > 100
    assert set(desk.replayed().values()) == {1} and desk.replayed().total() == 200


def test_what_still_fails_is_replayed_so_often_and_no_more(desk: Desk) -> None:
    line = desk.line
    line.publish(
        b"not JSON", 0, [("replay.number", b"0"), ("dlq.replays", b"0"), ("replay.origin", b"forged")]
    )
    line.flush()
    desk.work()
    for number in (1, 2):
        assert desk.json("replay", "--max-replays", "2")[0]["replayed"] == 1
        desk.work()
        (letter,) = desk.json("list", "--status", "dead")
        assert (letter["replays"], letter["origin"]) == (number, f"{line.input}:0:0")
    capped = desk.json("replay", "--max-replays", "2")[0]
    assert (capped["selected"], capped["left"]) == (0, {"exhausted": 1, "replayed": 2})
    code, out, _ = desk("replay", "--max-replays", "2", "--dry-run")
    assert code == 0 and "1  left alone: replayed too often (--max-replays)" in out
    # The count is in the topic: an index that was lost and built anew has it too.
    desk.index.clear()
    assert desk("rebuild")[0] == 0
    assert desk.json("replay", "--max-replays", "2", "--dry-run")[0]["selected"] == 0
    (newest,) = desk.json("list", "--status", "dead")
    assert newest["replays"] == 2


def test_what_dies_while_it_runs_is_left_to_the_next(desk: Desk) -> None:
    desk.line.config["input"] = {"max_bytes": 10}  # everything dies at once, while the replay goes on
    desk.bury(60)
    worker = desk.line.start()
    wait_until(lambda: worker.said("partitions assigned"), "the worker")
    assert desk.json("replay", "--rate", "30")[0]["replayed"] == 60
    wait_until(lambda: len(desk.index) >= 60, "the deaths of all of them")
    assert len(desk.replayed()) == 60


# -- the index and the topic ------------------------------------------------------------------------------


def test_rebuilt_after_flushall_the_index_says_the_same(desk: Desk, redis_url: str) -> None:
    line = desk.line
    line.config["input"] = TOO_STRICT
    publish(line, range(20))
    for value in (b"", b"not JSON", b'{"text": 5}', '{"text": "\u5f88"}'.encode()[:-3], b'{"text": "  "}'):
        line.publish(value, 0)
    line.flush()
    desk.work()
    assert desk("replay", "--id", f"{line.input}:0:3", "--id", f"{line.input}:1:6")[0] == 0
    desk.work()
    before = state(desk.index)
    assert len(before[0]) == 27 and len(before[2]) == 1
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert len(desk.index) == 0
    assert desk.json("rebuild", "--dry-run")[0]["letters"] == 27
    assert len(desk.index) == 0
    code, out, _ = desk("rebuild")
    assert (code, out) == (0, "the index holds 27 letters (2 replayed); before: 0\n")
    assert state(desk.index) == before
    # With an empty index, or none, the commands read the topic, and say the same.
    from_index = desk.json("list", "--max", "100")
    assert desk.json("list", "--max", "100", "--scan") == from_index
    desk.index.clear()
    code, out, err = desk("list", "--max", "100", "--json")
    assert [msgspec.json.decode(one) for one in out.splitlines()] == from_index
    assert "the index is empty" in err and f"reading the topic {line.dead_letters}" in err


def test_without_redis_the_topic_has_to_do(desk: Desk) -> None:
    desk.bury(5)
    desk.line.config["redis"]["url"] = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    for action in ("list", "stats", "replay"):
        code, out, err = desk(action)
        assert code == 0 and "no index at redis://***@127.0.0.1" in err and "the topic" in err
        assert "hunter2" not in out + err and "Traceback" not in err
    assert len(desk.replayed()) == 5
    assert desk.json("stats")[0]["status"] == {"replayed": 5}
    code, _, err = desk("rebuild")
    assert code == 3 and "redis.url" in err


def test_what_streamer_did_not_write_is_shown_as_such_and_left_alone(desk: Desk) -> None:
    garbage: list[Envelope] = [
        Envelope(None, None, []),
        Envelope(b"\xff", b"\xff\x00", [("dlq.reason", b"\xff"), ("dlq.topic", None)]),
        Envelope(
            b"k",
            b"v",
            [("dlq.reason", b"r"), ("dlq.topic", b"t"), ("dlq.partition", b"-1"), ("dlq.offset", b"x")],
        ),
        Envelope(b"k", b"{}", [("dlq.note", b"replayed")]),
        Envelope(
            b"k", b"9" * 50, [("dlq.reason", b"r"), ("dlq.topic", b"t"), ("dlq.partition", b"9" * 5000)]
        ),
        Envelope(
            b"k",
            b"v",
            [("dlq.reason", b"\x1b[2J"), ("dlq.topic", b"t"), ("dlq.partition", b"0"), ("dlq.offset", b"0")],
        ),
    ]
    for envelope in garbage:
        desk.write(envelope)
    desk.bury(2)
    stats = desk.json("stats", "--scan")[0]
    assert (stats["foreign"], stats["letters"]) == (5, 3)
    code, out, _ = desk("list", "--scan", "--text")
    assert code == 0 and out.count("foreign ") == 5 and "\x1b" not in out
    for offset in range(6):
        code, out, err = desk("show", f"{desk.line.dead_letters}:0:{offset}")
        assert code == 0 and err == "" and "\x1b" not in out
    done = desk.json("replay")[0]
    assert (done["replayed"], done["left"]) == (2, {"foreign": 5, "elsewhere": 1})
    assert desk("rebuild")[0] == 0
    assert len(desk.index) == 3
