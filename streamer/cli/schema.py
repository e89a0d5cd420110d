"""`streamer schema`: what the topics hold, as JSON Schema."""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from streamer.records import Result, Text

NAME = "schema"
HELP = "print the JSON Schema of the topics' contents"

DEAD_LETTER_HEADERS = {
    "dlq.reason": "why, as a word to count by: invalid_json, empty_text, too_large, ...",
    "dlq.error": "the class of the error",
    "dlq.message": "what went wrong, at most 1 KB",
    "dlq.topic": "topic of the record",
    "dlq.partition": "its partition",
    "dlq.offset": "its offset",
    "dlq.timestamp": "its time, milliseconds since the epoch",
    "dlq.attempts": "how often it was tried",
    "dlq.stage": "where in the line it failed: decode, tokenize, infer, publish",
    "dlq.model": "the model, with which it was tried",
    "dlq.failed_at": "when it failed, milliseconds since the epoch",
}
NUMBERS = {"dlq.partition", "dlq.offset", "dlq.timestamp", "dlq.attempts", "dlq.failed_at"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=["input", "result", "dead-letter-headers"],
        help="one of them; without it all, in one object",
    )


def run(args: argparse.Namespace) -> int:
    schemas = {
        "input": msgspec.json.schema(Text),
        "result": msgspec.json.schema(Result),
        "dead-letter-headers": dead_letter_headers(),
    }
    print(json.dumps(schemas[args.what] if args.what else schemas, indent=2, sort_keys=True))
    return 0


def dead_letter_headers() -> dict[str, Any]:
    """Header values are UTF-8 text, numbers written in decimal."""
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text}
            | ({"pattern": "^-?[0-9]+$"} if name in NUMBERS else {})
            for name, text in DEAD_LETTER_HEADERS.items()
        },
        "required": list(DEAD_LETTER_HEADERS),
    }
