"""The demo's records: reviews that we wrote, a few of them sent twice, and a few records broken on purpose.

The reviews are put together from the parts in `reviews_zh.toml` and `reviews_en.toml`. The label is the
colour of the parts, so it says what the author meant, not what some model thinks. Everything follows from
the seed.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

LABELS = ("positive", "negative")
LANGUAGES = ("zh", "en")
SHARE_OF_CHINESE = 0.7
SHORTEST, LONGEST = 5, 300
# One record in so many is sent a second time.
DUPLICATE_EVERY = 150

# What broken records look like, and the reason that each is given in the dead-letter topic.
BROKEN: tuple[tuple[str, bytes], ...] = (
    ("invalid_json", b'{"id": "broken-1", "text": "the line was cut off he'),
    ("empty_text", b'{"id": "broken-2", "text": ""}'),
    ("invalid_type", b'{"id": "broken-3", "text": 42}'),
    ("invalid_json", b'{"id": "broken-4", "text": "caf\xe9 in Latin-1"}'),
    ("invalid_type", b'{"id": "broken-5", "body": "there is no field named text"}'),
    ("empty_text", b'{"id": "broken-6", "text": " \\n\\t "}'),
    ("invalid_json", b"a plain sentence where JSON was agreed on"),
    ("invalid_type", b'["a list", "where an object was agreed on"]'),
)


@dataclass(frozen=True, slots=True)
class DemoRecord:
    """One record to publish. A broken one has a `reason`, all others a `label`."""

    key: bytes
    value: bytes
    id: str
    text: str = ""
    label: str = ""
    language: str = ""
    reason: str = ""
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Review:
    text: str
    label: str
    language: str
    category: str


def demo_records(count: int, seed: int, prefix: str = "demo") -> Iterator[DemoRecord]:
    """`count` reviews with ids under `prefix`; between them the broken records and the duplicates."""
    dice = random.Random(seed)
    broken_at: dict[int, list[tuple[str, bytes]]] = {}
    for number, broken in enumerate(BROKEN, 1):
        broken_at.setdefault(number * count // (len(BROKEN) + 1), []).append(broken)
    again: dict[int, DemoRecord] = {}
    for number, review in enumerate(_reviews(count, dice)):
        for reason, value in broken_at.get(number, ()):
            yield DemoRecord(f"customer-{dice.randrange(500):03d}".encode(), value, "", reason=reason)
        record = _record(f"{prefix}-{number:06d}", review, dice)
        yield record
        if number % DUPLICATE_EVERY == 0:
            # Some come back at once, while the first is still on its way, and some when it is long done.
            again[min(number + dice.choice((0, 20, 400)), count - 1)] = record
        if number in again:
            first = again.pop(number)
            yield DemoRecord(
                first.key, first.value, first.id, first.text, first.label, first.language, duplicate=True
            )


def _record(id: str, review: Review, dice: random.Random) -> DemoRecord:
    value = msgspec.json.encode(
        {"id": id, "text": review.text, "meta": {"language": review.language, "category": review.category}}
    )
    key = f"customer-{dice.randrange(500):03d}".encode()
    return DemoRecord(key, value, id, review.text, review.label, review.language)


def _reviews(count: int, dice: random.Random) -> Iterator[Review]:
    """Reviews no two of which have the same text. There are millions: drawing again soon finds a new one."""
    seen: set[str] = set()
    while len(seen) < count:
        lexicon = _lexicon(LANGUAGES[dice.random() >= SHARE_OF_CHINESE])
        category = dice.choice(lexicon["category"])
        label = dice.choice(LABELS)
        text = _compose(lexicon, category, label, dice)
        if SHORTEST <= len(text) <= LONGEST and text not in seen:
            seen.add(text)
            yield Review(text, label, lexicon["language"], category["name"])


def _compose(lexicon: dict[str, Any], category: dict[str, Any], label: str, dice: random.Random) -> str:
    """A text of one of five shapes, from a few words to a long paragraph."""
    colour = lexicon[label]
    clauses = dice.sample(category[label], dice.choice((2, 2, 3, 3, 4, 6)))
    verdict = dice.choice(colour["verdict"])
    match dice.choices(("short", "clause", "clauses", "story", "mixed"), (1, 2, 3, 3, 2))[0]:
        case "short":
            return _write(
                lexicon, [[dice.choice(colour["short"]).format(thing=dice.choice(category["things"]))]]
            )
        case "clause":
            return _write(lexicon, [clauses[:1], [verdict]])
        case "clauses":
            return _write(lexicon, [clauses[:2], clauses[2:], [verdict]])
        case "story":
            opening = dice.choice(category["openings"])
            return _write(lexicon, [[opening], clauses[:3], clauses[3:], [verdict]])
        case _:
            minor = dice.choice(category["minor_bad" if label == "positive" else "minor_good"])
            sentence = dice.choice(colour["mixed"]).format(minor=minor, clause=clauses[0])
            return _write(lexicon, [[sentence], clauses[1:2], [verdict]])


def _write(lexicon: dict[str, Any], sentences: list[list[str]]) -> str:
    """Clauses to sentences, sentences to a text, each with a capital where there are capitals."""
    stop: str = lexicon["stop"]
    written = [
        lexicon["last"].join([lexicon["comma"].join(clauses[:-1]), clauses[-1]] if clauses[1:] else clauses)
        for clauses in sentences
        if clauses
    ]
    return (stop.join(sentence[0].upper() + sentence[1:] for sentence in written) + stop).rstrip()


@cache
def _lexicon(language: str) -> dict[str, Any]:
    return tomllib.loads(files("streamer.embedded").joinpath(f"reviews_{language}.toml").read_text("utf-8"))
