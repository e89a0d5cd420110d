"""docs/asyncapi.yaml says what the code does: topics, keys, headers, values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator

from streamer import __version__
from streamer.cli.schema import DEAD_LETTER_HEADERS, dead_letter_headers
from streamer.codec import encode
from streamer.deadletters.letters import NOTE_HEADER, REPLAYED, Note, Step
from streamer.delays import topics_of
from streamer.ledger import Ledger
from streamer.records import Coordinate, DeadLetter, Delay, Record, Result, Text, TopicPartition
from streamer.settings.running import Retry
from streamer.settings.transport import Topics

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs" / "asyncapi.yaml").read_text("utf-8")
)


def resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = DOCUMENT
    for part in reference[2:].split("/"):
        node = node[part]
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    )


def job(settled: Result | DeadLetter | Delay) -> Any:
    record = Record(
        "texts.in",
        3,
        42,
        1_700_000_000_000,
        b"k",
        b'{"text":"fine"}',
        [("traceparent", b"00-1"), ("dlq.x", b"y")],
    )
    opened = Ledger(1 << 20)
    opened.assign([TopicPartition("texts.in", 3)])
    found = opened.open(record)
    found.settled = settled
    return found


DEAD = DeadLetter("invalid_json", "RecordError", "not JSON", "decode", 1, "sentiment", 1_700_000_000_001)
RESULT = Result(
    "a",
    "positive",
    0.75,
    {"positive": 0.75, "negative": 0.25},
    "sentiment",
    "1",
    Coordinate("t", 0, 1, 2),
    3,
    {"x": 1},
)


def test_version_and_topics() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["info"]["version"] == __version__
    topics = Topics()
    addresses = {name: channel["address"] for name, channel in DOCUMENT["channels"].items()}
    assert addresses == {
        "input": topics.input,
        "output": topics.output,
        "deadLetters": topics.dead_letters,
        "retry": f"{topics.retry}.{{delay}}",
    }
    levels = DOCUMENT["channels"]["retry"]["parameters"]["delay"]["enum"]
    assert [f"{topics.retry}.{level}" for level in levels] == topics_of(topics.retry, Retry().delays)


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert len(found) > 10
    for reference in found:
        resolve(reference)


def test_payloads_are_the_structs() -> None:
    references, schemas = msgspec.json.schema_components(
        [Text, Result, Note], ref_template="#/components/schemas/{name}"
    )
    messages = DOCUMENT["components"]["messages"]
    payloads = [messages[name]["payload"] for name in ("text", "result", "replayNote")]
    assert payloads == list(references)
    for name, schema in schemas.items():
        assert DOCUMENT["components"]["schemas"][name] == schema


@pytest.mark.parametrize(
    "value", [{"text": "a"}, {"id": 7, "text": "a", "meta": [1]}, {"id": None, "text": ""}]
)
def test_an_input_that_the_schema_takes_can_be_decoded(value: Any) -> None:
    validator("Text").validate(value)
    msgspec.json.decode(msgspec.json.encode(value), type=Text)


@pytest.mark.parametrize("value", [{}, {"text": None}, {"text": 1}, {"text": "a", "id": 1.5}, [], "a"])
def test_an_input_that_the_schema_refuses_cannot(value: Any) -> None:
    assert not validator("Text").is_valid(value)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(value), type=Text)


def test_a_result_as_it_is_published_is_valid() -> None:
    envelope = encode(job(RESULT))
    assert envelope.key == b"k"
    value = msgspec.json.decode(envelope.value or b"")
    validator("Result").validate(value)
    del value["source"]
    assert not validator("Result").is_valid(value)


def test_a_dead_letter_has_the_headers_that_are_described() -> None:
    envelope = encode(job(DEAD))
    assert (envelope.key, envelope.value) == (b"k", b'{"text":"fine"}')
    headers = {name: (value or b"").decode() for name, value in envelope.headers}
    assert {name for name in headers if name.startswith("dlq.")} == set(DEAD_LETTER_HEADERS)
    assert headers["traceparent"] == "00-1"
    validator("DeadLetterHeaders").validate(headers)
    assert not validator("DeadLetterHeaders").is_valid(headers | {"dlq.offset": "many"})


def test_dead_letter_headers_are_those_of_the_command() -> None:
    schema = DOCUMENT["components"]["schemas"]["DeadLetterHeaders"]
    assert dead_letter_headers().items() <= schema.items()


def test_a_delayed_record_has_the_headers_that_are_described() -> None:
    envelope = encode(job(Delay(2, 1_700_000_060_000, DEAD)))
    assert (envelope.key, envelope.value) == (b"k", b'{"text":"fine"}')
    headers = {name: (value or b"").decode() for name, value in envelope.headers}
    schema = DOCUMENT["components"]["schemas"]["RetryHeaders"]
    assert {name for name in headers if name.startswith("retry.")} == set(schema["required"])
    validator("RetryHeaders").validate(headers)


def test_a_note_as_it_is_written_is_valid() -> None:
    note = Note("one", 1, "ann", "all", [Step([1, 2], "texts.in:0:9@5", "texts.in:0:7", 1)])
    validator("Note").validate(msgspec.json.decode(msgspec.json.encode(note)))
    validator("NoteHeaders").validate({NOTE_HEADER: REPLAYED.decode()})
