"""Reading, choosing and chaining dead letters, without servers."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.codec import Decoder, encode
from streamer.deadletters.catalogue import Catalogue
from streamer.deadletters.letters import Foreign, Headers, Letter, Note, Step, read
from streamer.deadletters.replay import Candidate, Parcel, chunks, parcel
from streamer.deadletters.selection import Selection, moment, stamp
from streamer.records import DeadLetter, Defect, Envelope, Record
from streamer.shipping import Addressed
from streamer.state.entries import Entry, entries_of
from tests.contract.jobs import dead, job

DECODER = Decoder("json", ["header", "field", "coordinate"], 1000)


def message(envelope: Envelope, partition: int = 0, offset: int = 0) -> Record:
    """A message of the dead-letter topic, as it is read."""
    at = "texts.dlq", partition, offset, envelope.timestamp
    return Record(*at, envelope.key, envelope.value, envelope.headers)


def letter(source: int, offset: int, partition: int = 0, **fields: Any) -> Letter:
    entry = Entry(topic="texts.in", partition=partition, offset=source, timestamp=source, reason="r")
    return Letter(partition, offset, msgspec.structs.replace(entry, failed_at=source, **fields))


def note(*steps: Step, replay: str = "one") -> Note:
    return Note(replay, 1, "ann", "all", list(steps))


# -- reading ----------------------------------------------------------------------------------------------


def test_what_the_worker_wrote_is_read_as_what_it_indexed() -> None:
    one = dead(job(3, id="3", headers=[("id", b"3"), ("dlq.reason", b"forged"), ("dlq.note", b"replayed")]))
    assert isinstance(one.settled, DeadLetter)
    one.settled = msgspec.structs.replace(one.settled, message="  two\nlines " + "\u5f88" * 2000)
    one.record = msgspec.structs.replace(one.record, value=b'{"text": "fine"}')
    found = read(message(encode(one), 1, 9), DECODER)
    assert found == Letter(1, 9, entries_of([one])[0])


def test_the_id_is_that_of_the_claim_and_none_where_it_was_not_decoded() -> None:
    for value, id in (
        (b'{"text": "fine"}', "texts.in:0:3"),
        (b'{"text": "fine", "id": 5}', "5"),
        (b"junk", ""),
    ):
        one = dead(job(3))
        one.record = msgspec.structs.replace(one.record, value=value)
        found = read(message(encode(one)), DECODER)
        assert isinstance(found, Letter) and found.entry.id == id


@given(
    value=st.none() | st.binary(max_size=50),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                ["dlq.topic", "dlq.partition", "dlq.offset", "dlq.reason", "dlq.note", "dlq.failed_at", "x"]
            ),
            st.none()
            | st.binary(max_size=9)
            | st.sampled_from([b"replayed", b"0", b"7", b"-1", b"9" * 5000]),
        ),
        max_size=9,
    ),
)
def test_no_message_is_too_strange(value: bytes | None, headers: Headers) -> None:
    found = read(message(Envelope(None, value, headers)), DECODER)
    assert isinstance(found, Letter | Foreign | Note)
    if isinstance(found, Letter):
        msgspec.json.encode(found.entry)
        assert Selection(error="a", since=0).takes(found.entry) in (True, False)
        stamp(found.entry.failed_at)


def test_a_header_whose_name_is_not_utf8_is_foreign() -> None:
    defect = Defect("invalid_headers", "the name of a header is not UTF-8")
    strange = Record("texts.dlq", 0, 7, 0, None, b"v", [], defect)
    assert read(strange, DECODER) == Foreign(0, 7, 0, defect.detail)


# -- what became of them ----------------------------------------------------------------------------------


def test_copies_of_a_crashed_worker_are_one_letter() -> None:
    catalogue = Catalogue()
    catalogue.add(letter(5, 0), 0)
    catalogue.add(letter(5, 1, reason="other"), 0)
    assert len(catalogue) == 1
    assert [one.entry.reason for one in catalogue] == ["other"]
    assert [copy.offset for copy in catalogue.copies(letter(5, 0).entry.key)] == [0, 1]
    assert list(catalogue.below({0: 1})) == [] and len(list(catalogue.below({0: 2}))) == 1


def test_a_copy_that_came_after_the_note_is_dead_again() -> None:
    catalogue = Catalogue()
    catalogue.add(letter(5, 0), 0)
    catalogue.add(note(Step([0], "texts.in:0:9@9", "texts.in:0:5", 1)), 0)
    assert [one.entry.status for one in catalogue] == ["replayed"]
    catalogue.add(letter(5, 2), 0)
    assert [one.entry.status for one in catalogue] == ["dead"]


def test_a_note_is_of_its_own_partition() -> None:
    catalogue = Catalogue()
    catalogue.add(letter(5, 0, partition=0), 0)
    catalogue.add(letter(6, 0, partition=1), 1)
    catalogue.add(note(Step([0], "texts.in:1:9@9", "texts.in:1:6", 1)), 1)
    assert [one.entry.status for one in catalogue] == ["dead", "replayed"]


def test_the_chain_of_replays_is_counted_from_the_notes() -> None:
    catalogue = Catalogue()
    catalogue.add(letter(5, 0), 0)
    catalogue.add(note(Step([0], letter(9, 2).entry.key, "texts.in:0:5", 1)), 0)
    catalogue.add(letter(9, 2), 0)
    catalogue.add(note(Step([2], letter(12, 4).entry.key, "texts.in:0:5", 2), replay="two"), 0)
    catalogue.add(letter(12, 4), 0)
    last = list(catalogue)[-1].entry
    assert (last.replays, last.origin, last.status) == (2, "texts.in:0:5", "dead")
    assert [audit.name for audit in catalogue.audits()] == ["two", "one"]


def test_what_a_purge_would_forget_of_what_stays_is_carried_over() -> None:
    catalogue = Catalogue()
    catalogue.add(letter(5, 0), 0)
    catalogue.add(note(Step([0], letter(9, 2).entry.key, "texts.in:0:5", 1)), 0)
    catalogue.add(letter(9, 2), 0)
    assert catalogue.carried({0: 3}) == {}
    carried = catalogue.carried({0: 2})
    assert carried == {0: [Step([], letter(9, 2).entry.key, "texts.in:0:5", 1)]}
    after = Catalogue()
    after.add(letter(9, 2), 0)
    after.add(note(*carried[0], replay="the purge"), 0)
    (left,) = after
    assert (left.entry.replays, left.entry.origin, left.entry.status) == (1, "texts.in:0:5", "dead")
    assert after.audits() == []


def test_a_replay_of_several_chunks_is_one_in_the_audit() -> None:
    catalogue = Catalogue()
    for number in range(3):
        catalogue.add(note(Step([number], f"k{number}", "o", 1), Step([9], f"l{number}", "o", 1)), number)
    (audit,) = catalogue.audits()
    assert audit.count == 6


# -- choosing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(reasons=("a", "r")), True),
        (Selection(reasons=("a",)), False),
        (Selection(since=5, until=6), True),
        (Selection(since=6), False),
        (Selection(until=5), False),
        (Selection(ids=("x", "texts.in:0:5")), True),
        (Selection(ids=("the id",)), True),
        (Selection(ids=("texts.in:0:1",)), True),
        (Selection(ids=("",)), False),
        (Selection(partitions=(1, 0)), True),
        (Selection(partitions=(1,)), False),
        (Selection(error="BROKEN"), True),
        (Selection(error="valueerror: "), True),
        (Selection(error="fine"), False),
        (Selection(status="dead"), True),
        (Selection(status="replayed"), False),
        (Selection(reasons=("r",), partitions=(1,)), False),
    ],
    ids=str,
)
def test_all_filters_must_hold(selection: Selection, taken: bool) -> None:
    fields: dict[str, Any] = {
        "error": "ValueError",
        "message": "it is broken",
        "id": "the id",
        "origin": "texts.in:0:1",
    }
    assert selection.takes(letter(5, 0, **fields).entry) is taken


def test_ages_and_times() -> None:
    def now() -> float:
        return 1_000_000.0

    assert moment("2h", now) == (1_000_000 - 7200) * 1000
    assert moment("1.5m", now) == (1_000_000 - 90) * 1000
    assert moment("1970-01-01T00:00:07+00:00") == 7000
    assert moment(stamp(1_750_000_000_000)) == 1_750_000_000_000, "what is shown can be typed"
    for wrong in ("", "2", "h", "2w", "yesterday", "-2h", "2026-13-01"):
        with pytest.raises(ValueError):
            moment(wrong)
    assert stamp(1 << 62) == "?"


# -- publishing -------------------------------------------------------------------------------------------


def test_a_parcel_is_the_record_with_where_it_came_from() -> None:
    headers: Headers = [("traceparent", b"t"), ("empty", None)]
    old: Headers = [("replay.number", b"9"), ("dlq.x", b""), ("retry.level", b"3")]
    record = job(3, headers=[*headers, *old]).record
    candidate = Candidate(letter(3, 8, replays=1, origin="texts.in:0:1"), [8], 2)
    make = partial(parcel, candidate, record, note=note(), topic="texts.in", partitions=2)
    made = make(None).message
    assert (made.topic, made.partition) == ("texts.in", 0)
    assert (made.key, made.value) == (record.key, record.value)
    assert made.headers == [
        *headers,
        ("replay.origin", b"texts.in:0:1"),
        ("replay.timestamp", b"3"),
        ("replay.number", b"2"),
        ("replay.name", b"one"),
    ]
    assert make("an id").message.headers[-1] == ("id", b"an id")


def test_chunks_are_bounded_in_number_size_and_time() -> None:
    def sizes(count: int, rate: float | None, size: int = 1) -> list[int]:
        message = Addressed("texts.in", 0, None, b"x" * size, [])
        parcels = [Parcel(Candidate(letter(0, 0), [0], 1), message)] * count
        return [len(chunk) for chunk in chunks(parcels, rate)]

    assert sizes(1100, None) == [500, 500, 100]
    assert sizes(5, 2.5) == [2, 2, 1]
    assert sizes(2, 0.1) == [1, 1]
    assert sizes(3, None, 5 << 20) == [1, 1, 1]
    assert sizes(0, None) == []
