"""The demo's records: distinct, labelled, balanced, decided by the seed, and broken where they say so."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from streamer.codec import Decoder
from streamer.embedded.texts import BROKEN, LABELS, LONGEST, SHORTEST, DemoRecord, demo_records
from streamer.errors import RecordError
from streamer.records import Record

DECODER = Decoder("json", ["header", "field", "content", "coordinate"], 1 << 20)


@pytest.fixture(scope="module")
def records() -> list[DemoRecord]:
    return list(demo_records(3000, seed=7))


@pytest.fixture(scope="module")
def reviews(records: list[DemoRecord]) -> list[DemoRecord]:
    return [record for record in records if record.label and not record.duplicate]


def decode(record: DemoRecord) -> tuple[str, str]:
    identity, text = DECODER.decode(Record("texts.in", 0, 0, 0, record.key, record.value, []))
    return identity, text.text


def test_there_are_as_many_reviews_as_asked_for_and_no_two_are_alike(reviews: list[DemoRecord]) -> None:
    assert len(reviews) == 3000
    assert len({review.text for review in reviews}) == 3000
    assert len({review.id for review in reviews}) == 3000


def test_reviews_are_labelled_and_balanced_in_both_languages(reviews: list[DemoRecord]) -> None:
    kinds = Counter((review.language, review.label) for review in reviews)
    assert set(kinds) == {(language, label) for language in ("zh", "en") for label in LABELS}
    for language in ("zh", "en"):
        positive, negative = kinds[language, "positive"], kinds[language, "negative"]
        assert 0.8 < positive / negative < 1.25
    assert 0.6 < (kinds["zh", "positive"] + kinds["zh", "negative"]) / len(reviews) < 0.8


def test_reviews_are_short_and_long_and_on_many_things(reviews: list[DemoRecord]) -> None:
    lengths = sorted(len(review.text) for review in reviews)
    assert SHORTEST <= lengths[0] < 10
    assert 200 < lengths[-1] <= LONGEST
    assert len({msgspec.json.decode(review.value)["meta"]["category"] for review in reviews}) == 14


def test_nothing_of_the_templates_is_left_in_a_text(reviews: list[DemoRecord]) -> None:
    assert not [review.text for review in reviews if set("{}_") & set(review.text)]
    assert not [review.text for review in reviews if "。。" in review.text or ".." in review.text]


def test_the_seed_decides_everything() -> None:
    assert list(demo_records(200, seed=3)) == list(demo_records(200, seed=3))
    assert list(demo_records(200, seed=3)) != list(demo_records(200, seed=4))


def test_the_prefix_keeps_runs_apart() -> None:
    first, second = demo_records(50, 1, "a"), demo_records(50, 1, "b")
    assert not {record.id for record in first if record.id} & {record.id for record in second if record.id}


def test_values_decode_to_what_the_record_says(records: list[DemoRecord]) -> None:
    for record in records:
        if not record.reason:
            assert decode(record) == (record.id, record.text)


def test_duplicates_repeat_an_earlier_record(records: list[DemoRecord]) -> None:
    seen: dict[str, bytes] = {}
    duplicates = 0
    for record in records:
        if record.duplicate:
            duplicates += 1
            assert seen[record.id] == record.value
        elif record.id:
            assert record.id not in seen
            seen[record.id] = record.value
    assert duplicates == 20


def test_broken_records_are_broken_for_the_reason_given(records: list[DemoRecord]) -> None:
    broken = [record for record in records if record.reason]
    assert Counter(record.value for record in broken) == Counter(value for _, value in BROKEN)
    for record in broken:
        with pytest.raises(RecordError) as refused:
            decode(record)
        assert refused.value.reason == record.reason


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_records_bring_the_broken_ones_and_a_duplicate_too(count: int) -> None:
    records = list(demo_records(count, seed=1))
    assert sum(bool(record.reason) for record in records) == len(BROKEN)
    assert sum(record.duplicate for record in records) == 1
    assert len(records) == count + len(BROKEN) + 1
