"""Dead letters chosen, looked at, paced and purged, on a real Kafka and Redis."""

from __future__ import annotations

import io
import json
import signal
from base64 import b64decode
from time import monotonic

import pytest

from streamer.state.entries import Entry
from streamer.state.index import RedisDeadLetters
from tests.conftest import MakeTopic
from tests.integration.dlq import FAILED_AT, Desk, state
from tests.integration.line import wait_until

# -- choosing, looking, pacing ----------------------------------------------------------------------------


def test_filters(desk: Desk) -> None:
    desk.bury(4, partition=0)
    desk.bury(3, partition=1, reason="refused")
    assert desk("rebuild")[0] == 0
    for options, expected in (
        (["--reason", "refused"], 3),
        (["--reason", "refused", "--reason", "infer_failed"], 7),
        (["--partition", "0"], 4),
        (["--partition", "0", "--reason", "refused"], 0),
        (["--id", "0-2", "--id", f"{desk.line.input}:1:10001"], 2),
        (["--error", "VALUEERROR"], 7),
        (["--error", "nothing of the kind"], 0),
        (["--since", "2025-06-15T15:06:40.001+00:00"], 5),
        (["--until", "2025-06-15T15:06:40.001+00:00"], 2),
        (["--since", "30m"], 0),
        (["--until", "1d"], 7),
    ):
        for scan in ([], ["--scan"]):
            assert len(desk.json("list", *options, *scan)) == expected, (options, scan)
        assert desk.json("replay", "--dry-run", *options)[0]["selected"] == expected, options
    assert desk("list", "--since", "yesterday")[0] == 2


def test_max_takes_the_oldest_and_a_rate_is_kept(desk: Desk) -> None:
    desk.bury(30)
    started = monotonic()
    first = desk.json("replay", "--max", "20", "--rate", "10")[0]
    assert monotonic() - started >= 1.0, "two chunks, the second a second later"
    assert (first["replayed"], first["left"]) == (20, {"beyond_max": 10})
    assert sorted(desk.replayed()) == [f"{desk.line.input}:0:{10_000 + number}" for number in range(20)]


def test_a_record_that_the_input_topic_does_not_take_is_named_and_the_others_go(
    desk: Desk, make_topic: MakeTopic
) -> None:
    desk.line.input = desk.line.config["topics"]["input"] = make_topic(
        "small", 2, {"max.message.bytes": "3000"}
    )
    desk.bury(20)
    desk.bury(1, text="x" * 5000, first=30_000)
    desk.bury(20, first=40_000)
    code, out, err = desk("replay")
    assert code == 1, err
    assert f"the broker does not take {desk.line.input}:0:30000: " in out, err
    assert "replayed 40 of 41" in out
    assert set(desk.replayed().values()) == {1} and desk.replayed().total() == 40
    assert [letter["offset"] for letter in desk.json("list", "--scan", "--status", "dead")] == [30_000]


def test_what_is_not_the_whole_record_is_left_alone(desk: Desk) -> None:
    desk.bury(2)
    desk.bury(1, reason="cut", first=20_000)
    desk.bury(1, reason="unreadable_batch", first=30_000)
    done = desk.json("replay")[0]
    assert (done["replayed"], done["left"]) == (2, {"incomplete": 2})


def test_texts_are_shown_only_to_who_asks(desk: Desk) -> None:
    desk.bury(2, text="a secret")
    assert desk("rebuild")[0] == 0
    for action, *options in (
        ["list"],
        ["list", "--scan"],
        ["stats"],
        ["replay", "--dry-run"],
        ["list", "--json"],
    ):
        code, out, err = desk(action, *options)
        assert code == 0 and "secret" not in out + err
    assert '"text":"a secret 1"' in desk("list", "--text")[1]
    code, out, _ = desk("show", f"{desk.line.input}:0:10001")
    assert code == 0 and "a secret 1" in out and "dlq.reason: infer_failed" in out and "key: key" in out
    for nobody in ("x", f"{desk.line.input}:0:5", f"{desk.line.dead_letters}:7:0"):
        code, out, err = desk("show", nobody)
        assert (code, out) == (1, "") and f"there is no dead letter of {nobody}" in err and "dlq list" in err


def test_show_knows_a_record_by_its_id_and_shows_each_of_its_deaths(desk: Desk) -> None:
    desk.line.config["input"] = {"max_bytes": 100}
    desk.line.publish(json.dumps({"id": "order-17", "text": "x" * 200}).encode(), 0)
    desk.line.publish(b"\xff\xfe", 0)
    desk.line.flush()
    desk.work()
    assert desk("replay", "--error", "the limit is")[0] == 0
    desk.work()
    desk.line.config["input"] = {}  # whoever looks may decode what the worker could not
    first, second = desk.json("show", "order-17")
    assert json.loads(first["value"])["id"] == "order-17" == second["letter"]["id"]
    assert [(one["letter"]["status"], one["letter"]["replays"]) for one in (first, second)] == [
        ("replayed", 0),
        ("dead", 1),
    ]
    by_origin = desk.json("show", first["letter"]["source"])
    assert by_origin == [first, second]
    out = desk("show", "order-17")[1]
    assert ": dead letter, replayed\n" in out
    assert f": dead letter (replay 1 of {first['letter']['source']})\n" in out
    (broken,) = desk.json("show", f"{desk.line.input}:0:1")
    assert b64decode(broken["value_base64"]) == b"\xff\xfe"
    assert "2 bytes that are no UTF-8" in desk("show", f"{desk.line.input}:0:1")[1]


def test_a_slip_of_the_pen_is_told_from_an_answer(desk: Desk) -> None:
    code, out, err = desk("list")
    assert (code, out) == (0, "") and "there are no dead letters" in err
    desk.bury(3)
    assert desk("rebuild")[0] == 0
    for action in ("list", "list --scan", "stats", "stats --scan", "replay --dry-run", "purge --dry-run"):
        code, out, err = desk(*action.split(), "--reason", "infer_fialed")
        assert code == 0 and "no dead letter has the reason infer_fialed: the reasons are infer_failed" in err
    for scan in ([], ["--scan"]):
        code, out, err = desk("list", "--max", "2", *scan)
        assert len(out.splitlines()) == 2 and "there are more" in err
        assert "there are more" not in desk("list", "--max", "3", *scan)[2]
        assert "no dead letter is like that" in desk("list", "--id", "nobody", *scan)[2]
    code, out, err = desk("list", "--since", "2h", "--until", "3h")
    assert (code, out) == (2, "") and "nothing is between them" in err


def test_stats_count_by_status_and_by_tries(desk: Desk) -> None:
    desk.bury(3, tries=4)
    desk.bury(2, partition=1)
    assert desk("rebuild")[0] == 0
    assert desk("replay", "--partition", "1")[0] == 0
    for scan in ([], ["--scan"]):
        assert desk.json("stats", *scan)[0]["attempts"] == {"1": 2, "4": 3}
        dead = desk.json("stats", "--status", "dead", *scan)[0]
        assert (dead["letters"], dead["attempts"]) == (3, {"4": 3})
        assert "tries: 2 after 1, 3 after 4" in desk("stats", *scan)[1]
    assert "(try 4)" in desk("list")[1]


def test_a_rebuild_keeps_what_dies_while_it_reads(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bury(3)
    clear = RedisDeadLetters.clear

    def late(index: RedisDeadLetters) -> None:
        desk.bury(2, first=50_000)
        index.put([Entry(desk.line.input, 0, 50_000, 1, "infer_failed")])  # as its worker did
        clear(index)

    monkeypatch.setattr(RedisDeadLetters, "clear", late)
    code, out, err = desk("rebuild")
    assert code == 0 and "the index holds 5 letters" in out, err
    assert {entry.offset for entry in desk.index.entries()} == {10_000, 10_001, 10_002, 50_000, 50_001}


def test_an_index_that_is_full_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.state.index.RedisDeadLetters.__init__.__kwdefaults__", {"limit": 3})
    desk.bury(5)
    code, out, _ = desk("rebuild")
    assert code == 0 and "the index holds the newest 3 of 5 letters" in out
    code, out, err = desk("stats")
    assert code == 0 and "3 dead letters" in out and "the newest 3 letters only; --scan" in err
    assert [letter["offset"] for letter in desk.json("list")] == [10_004, 10_003, 10_002]
    assert desk.json("stats", "--scan")[0]["letters"] == 5


def test_a_replay_that_is_terminated_says_how_far_it_came_and_leaves_nothing_open(desk: Desk) -> None:
    desk.bury(50)
    running = desk.process("replay", "--rate", "10", "--json")
    seen = desk.line.reader(desk.line.input)
    wait_until(lambda: running.poll() is not None or seen.read() >= 10, "a chunk")
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    report = json.loads(out)
    assert report["selected"] == 50 and 0 < report["replayed"] < 50
    assert "dead letters replayed" in err and "Traceback" not in err
    # What it left open would hide what comes after it until the transaction times out.
    desk.line.publish(b'{"text": "later"}', 0)
    desk.line.flush()
    assert len(desk.read(desk.line.input)) == report["replayed"] + 1
    assert desk.json("replay")[0]["replayed"] == 50 - report["replayed"]
    assert set(desk.replayed().values()) == {1}


def test_who_did_what_is_kept(desk: Desk) -> None:
    desk.bury(3)
    code, _, err = desk("replay", "--reason", "infer_failed")
    assert code == 0 and '"message":"dead letters replayed"' in err
    (audit,) = desk.json("stats")[0]["audit"]
    assert (audit["action"], audit["count"], audit["filter"]) == ("replay", 3, "reason=infer_failed")
    assert "@" in audit["by"] and audit["at"] > FAILED_AT
    assert "replay 2" in desk("stats")[1]


# -- purge ------------------------------------------------------------------------------------------------


def test_purge_asks_first(desk: Desk) -> None:
    desk.bury(5)
    assert desk("rebuild")[0] == 0
    code, _, err = desk("purge")
    assert code == 2 and "add --yes" in err
    dry = desk.json("purge", "--dry-run")[0]
    assert (dry["letters"], dry["not_replayed"], dry["purged"]) == (5, 5, False)
    assert len(desk.read(desk.line.dead_letters)) == 5 and len(desk.index) == 5
    code, out, err = desk("purge", "--yes")
    assert code == 0 and "deleted 5 dead letters" in out and '"message":"dead letters purged"' in err
    assert desk.read(desk.line.dead_letters) == [] and len(desk.index) == 0
    assert desk.index.counts() == {}
    assert desk.index.audits()[0].action == "purge"
    desk.bury(1)
    assert desk.json("stats", "--scan")[0]["letters"] == 1, "it goes on after a purge"


def test_purge_asks_beside_its_output_and_takes_a_no(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = desk("purge", "--yes")
    assert code == 0 and "there is nothing to delete" in out
    desk.bury(5)
    for answer, left in (("\n", 5), ("no\n", 5), ("", 5), ("y\n", 0)):
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        code, out, err = desk("purge", "--json")
        assert "Delete 5 dead letters from" in err and len(desk.read(desk.line.dead_letters)) == left
        assert (code, out) == (1, "") if left else (code, json.loads(out)["purged"]) == (0, True)


def test_purge_cuts_up_to_the_first_letter_that_stays(desk: Desk) -> None:
    desk.bury(3, partition=0, reason="one")
    desk.bury(2, partition=0, reason="two", text="others", first=20_000)
    desk.bury(2, partition=1, reason="two")
    assert desk("replay", "--reason", "two")[0] == 0
    code, out, _ = desk("purge", "--status", "replayed", "--yes")
    assert code == 0
    assert "2 of 4 matching dead letters can be deleted" in out and "0 of them not replayed" in out
    assert "Kafka deletes from the start of a partition only" in out
    left = desk.json("list", "--scan")
    assert [(entry["partition"], entry["reason"]) for entry in left] == [
        (0, "one"),
        (0, "two"),
        (0, "one"),
        (0, "two"),
        (0, "one"),
    ]
    again = desk.json("replay")[0]
    assert again["replayed"] == 3, again
    assert set(desk.replayed().values()) == {1}


def test_a_purge_keeps_the_number_of_replays_of_what_stays(desk: Desk) -> None:
    desk.line.publish(b"not JSON", 0)
    desk.line.flush()
    desk.work()
    assert desk("replay")[0] == 0
    desk.work()
    assert desk("purge", "--status", "replayed", "--yes")[0] == 0
    (left,) = desk.json("list", "--scan")
    assert (left["replays"], left["origin"]) == (1, f"{desk.line.input}:0:0")
    assert desk.json("replay", "--max-replays", "1")[0]["left"] == {"exhausted": 1}
    # The index says what the topic says; the audit of replays that were purged it alone still has.
    before = state(desk.index)
    assert desk("rebuild")[0] == 0
    assert state(desk.index) == before
    assert [audit.action for audit in before[2]] == ["purge", "replay"]


def test_no_topic_and_no_broker(desk: Desk) -> None:
    desk.line.config["topics"]["dead_letters"] = "nobody-made-this"
    for action in ("list", "stats", "replay", "rebuild", "purge"):
        code, _, err = desk(action, *(["--scan"] if action in ("list", "stats") else []))
        assert code == 3 and "streamer topics create" in err
    desk.line.config["kafka"]["bootstrap_servers"] = "127.0.0.1:1"
    code, _, err = desk("list", "--scan")
    assert code == 3 and "no Kafka broker answers" in err
