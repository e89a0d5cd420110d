"""What goes on while claims and marks are under way, and what becomes of them if something ends meanwhile."""

from __future__ import annotations

import pytest

from streamer.records import TopicPartition
from tests.engine.accounts import check_accounts
from tests.engine.late import LateClaims
from tests.engine.parts import away
from tests.engine.rig import Rig

FIRST, SECOND = TopicPartition("texts.in", 0), TopicPartition("texts.in", 1)
WINDOW = 16


class LateRig(Rig):
    claims: LateClaims


def late(partitions: int = 1, records: int = 3 * WINDOW) -> LateRig:
    rig = LateRig(partitions, claims=LateClaims, max_records=WINDOW)
    for number in range(records):
        rig.send("good", f"id{number}", number % partitions)
    return rig


def held(partitions: int = 1, records: int = 3 * WINDOW) -> LateRig:
    """The claims of the first window are under way."""
    rig = late(partitions, records)
    rig.claims.hold = "claim"
    rig.steps(10)
    assert [len(jobs) for jobs in rig.claims.claimed] == [WINDOW]
    return rig


def test_the_next_window_fills_meanwhile_and_waits_for_its_turn() -> None:
    rig = held()
    window = rig.engine._window
    assert window.full and len(rig.engine._claims) == WINDOW and rig.scorer.calls == []
    rig.claims.hold = ""
    rig.run()
    assert [len(jobs) for jobs in rig.claims.claimed] == [WINDOW] * 3
    assert rig.ids == [f"id{number}" for number in range(3 * WINDOW)]
    check_accounts(rig)


def test_a_full_window_is_claimed_while_the_one_before_is_still_to_be_inferred() -> None:
    rig = late()
    rig.steps(2)
    assert len(rig.claims.claimed) == 2 and sum(rig.scorer.calls) < WINDOW


def test_an_id_of_a_window_that_is_under_way_is_a_duplicate_in_the_next() -> None:
    rig = late(records=WINDOW)
    for number in range(WINDOW):
        rig.send("good", f"id{number}")
    rig.claims.hold = "claim"
    rig.steps(5)
    rig.claims.hold = ""
    rig.run()
    assert rig.engine.metrics.skipped == {"duplicate": WINDOW} and len(rig.ids) == WINDOW
    check_accounts(rig)


def test_a_lone_record_waits_for_the_answer_and_for_nothing_else() -> None:
    rig = late(records=1)
    rig.steps(3)
    before = rig.clock.waited
    rig.send("good", "lone")
    while "lone" not in rig.ids:
        rig.engine.step()
    assert rig.clock.waited - before < 0.01, "its window lingers for 5 ms"


def test_polling_goes_on_and_nothing_spins_while_no_answer_comes() -> None:
    rig = held(records=WINDOW)
    polls, waited = rig.polls, rig.clock.waited
    rig.steps(20)
    assert rig.polls == polls + 20
    assert 0.05 < rig.clock.waited - waited < 1.0


def test_an_answer_that_is_lost_is_asked_for_again_and_nobody_is_suspected() -> None:
    rig = late()
    rig.claims.lose = 3
    rig.run()
    assert rig.engine.metrics.retries["claim"] + rig.engine.metrics.retries["mark"] == 3
    assert max(rig.scorer.calls) > 1 and rig.memory.starts == {}, "one by one they would go as suspects"
    assert rig.ids == [f"id{number}" for number in range(3 * WINDOW)]
    check_accounts(rig)


def test_of_a_revoked_partition_nothing_is_inferred_and_its_next_owner_suspects_nobody() -> None:
    rig = held(partitions=2)
    rig.source.rebalance("revoked", [FIRST])
    rig.engine.step()
    rig.claims.hold = ""
    rig.steps(20)
    assert {partition for partition, _ in rig.scored()} == {1} and rig.committed == {SECOND: 24}
    assert rig.memory.left.keys() == {FIRST}
    rig.source.rebalance("revoked", [SECOND])
    rig.engine.step()
    rig.restart()
    rig.run()
    assert max(rig.scorer.calls) > 1 and rig.memory.starts == {}
    check_accounts(rig)


@pytest.mark.parametrize("event", ["revoked", "lost"])
def test_a_partition_that_comes_back_meanwhile_is_claimed_anew(event: str) -> None:
    rig = held()
    rig.source.rebalance(event, [FIRST])
    rig.source.rebalance("assigned", [FIRST])
    rig.steps(3)
    rig.claims.hold = ""
    rig.run()
    assert rig.ids == [f"id{number}" for number in range(3 * WINDOW)]
    assert rig.memory.starts == {}, "this process lives: nobody is suspected"
    check_accounts(rig)


def test_when_all_that_was_to_be_claimed_again_is_gone_the_next_window_is_claimed() -> None:
    rig = late(partitions=2)
    rig.claims.hold, rig.claims.lose = "mark", 1
    rig.steps(4)
    assert rig.engine.metrics.retries == {"claim": 1}
    rig.claims.hold = "claim"
    rig.source.rebalance("lost", [FIRST, SECOND])
    rig.steps(20)
    rig.claims.hold = ""
    rig.on = away("claim:before", 1)
    rig.source.rebalance("assigned", [FIRST, SECOND])
    rig.run()
    assert rig.engine.metrics.retries["claim"] == 2
    check_accounts(rig)


def test_a_stop_waits_for_no_claim_and_the_next_run_does_the_rest() -> None:
    rig = held()
    before = rig.clock.now
    rig.engine.stop()
    rig.run()
    assert rig.clock.now - before < 0.2 and rig.ids == [] and rig.committed == {}
    rig.restart()
    rig.run()
    assert rig.memory.starts == {} and max(rig.scorer.calls) > 1
    check_accounts(rig)


def test_a_run_does_not_end_as_idle_while_claims_are_under_way() -> None:
    rig = held(records=WINDOW)
    rig.steps(100)
    assert rig.engine.idle_for() < 0.001


# -- marks ------------------------------------------------------------------------------------------------


def unmarked() -> LateRig:
    """Results are written, and the mark of the first of them is under way."""
    rig = late()
    while not rig.ids:
        rig.engine.intake()
        rig.engine.dispatch()
        rig.engine.settle()
    rig.claims.hold = "mark"
    rig.engine.commit()
    assert rig.claims.marked[-1] != {FIRST: 0}
    return rig


def test_nothing_is_committed_before_its_mark_is_answered_and_the_rest_shares_the_next() -> None:
    rig = unmarked()
    first = rig.claims.marked[-1]
    rig.steps(10)
    assert rig.committed == {} and rig.claims.marked.count(first) == 1
    rig.claims.hold = ""
    rig.engine.commit()
    rig.source.flush(0)
    assert rig.committed == first
    rig.run()
    assert len(rig.claims.marked) < len(rig.scorer.calls), "those that were written meanwhile are one mark"
    check_accounts(rig)


def test_a_mark_that_is_lost_is_made_again_before_the_commit() -> None:
    rig = unmarked()
    rig.claims.hold, rig.claims.lose = "", 1
    rig.engine.commit()
    rig.source.flush(0)
    assert rig.committed == {} and rig.engine.metrics.results == 0
    rig.run()
    assert (
        rig.engine.metrics.results == len(rig.ids) == 3 * WINDOW and rig.engine.metrics.retries["mark"] == 1
    )
    check_accounts(rig)


def test_a_partition_that_goes_while_its_mark_is_under_way_is_marked_and_not_committed() -> None:
    rig = unmarked()
    rig.source.rebalance("lost", [FIRST])
    rig.engine.intake()
    rig.claims.hold = ""
    rig.steps(5)
    assert rig.memory.written[FIRST] == len(rig.ids) > 0 and rig.committed == {} and not rig.engine._outbox
    rig.source.rebalance("assigned", [FIRST])
    rig.run()
    check_accounts(rig)


def test_a_stop_waits_for_the_mark_as_long_as_a_drain_may_take() -> None:
    rig = unmarked()
    rig.engine.stop()
    rig.run()
    assert rig.committed == {} and rig.ids, "it was written, and Redis did not say that it is marked"
    written = len(rig.ids)
    rig.restart()
    rig.run()
    assert rig.engine.metrics.skipped["redelivered"] == written
    check_accounts(rig)
