"""What the types of the configuration tell: which keys there are, and what to say of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from msgspec import inspect

from streamer.settings import Config

PREFIX = "STREAMER__"
# msgspec's names for types, as people call them.
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
# What a section's patterns stand for.
EXAMPLES = {
    "topics": "a topic name of up to 249 letters, digits, dots, dashes and underscores",
    "redis": "an address such as redis://host:6379/0, rediss://user:password@host/0 or unix:///path",
}


@cache
def sections() -> dict[str, inspect.Type]:
    """Top-level name -> type; `delivery` is one without keys of its own."""
    info = inspect.type_info(Config)
    assert isinstance(info, inspect.StructType)
    return {field.name: bare(field.type) for field in info.fields}


@cache
def kinds() -> dict[str, inspect.Type]:
    """Dotted key -> type, for every key of the configuration."""
    kinds: dict[str, inspect.Type] = {}
    for name, kind in sections().items():
        if isinstance(kind, inspect.StructType):
            kinds.update((f"{name}.{field.name}", bare(field.type)) for field in kind.fields)
        else:
            kinds[name] = kind
    return kinds


def durations() -> Iterator[str]:
    """The keys that take 7d for 604800."""
    for name, kind in sections().items():
        if isinstance(kind, inspect.StructType):
            for field in kind.fields:
                if isinstance(field.type, inspect.Metadata) and (field.type.extra or {}).get("duration"):
                    yield f"{name}.{field.name}"


def bare(kind: inspect.Type) -> inspect.Type:
    """The type without what is annotated."""
    return bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def is_section(name: str) -> bool:
    return isinstance(sections().get(name), inspect.StructType)


def unknown(tree: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the names in it."""
    known = kinds()
    for name, section in tree.items():
        if not is_section(name) and name not in known:
            yield f"{name}: unknown section{near(name, list(sections()), known)}"
        elif is_section(name) and isinstance(section, dict):
            keys = [key.partition(".")[2] for key in known if key.startswith(f"{name}.")]
            for key in section:
                if key not in keys:
                    yield f"{name}.{key}: unknown key{near(str(key), keys, known)}"


def near(name: str, here: list[str], known: Mapping[str, object]) -> str:
    """The same name in another section, or a near miss among the neighbours."""
    if elsewhere := [key for key in known if key.partition(".")[2] == name]:
        return f"; did you mean {elsewhere[0]}?"
    if close := get_close_matches(name, here, n=1):
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(here)}"


def explain(message: str, written: Mapping[str, Any]) -> tuple[str, str]:
    """msgspec's message as (key, what is wrong with it)."""
    text, _, path = message.partition(" - at `$")
    key = re.sub(r"\[\d+\]", "", path.rstrip("`").lstrip("."))
    value: Any = written
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    kind = kinds().get(key)
    if isinstance(kind, inspect.VarTupleType):
        kind = bare(kind.item_type)
    if text.startswith("Invalid enum value") and isinstance(kind, inspect.LiteralType):
        choices = [str(choice) for choice in kind.values]
        close = get_close_matches(str(value).lower(), choices, n=1)
        return key, f"expected {' or '.join(choices)}, got {value}" + (
            f"; did you mean {close[0]}?" if close else ""
        )
    if "matching regex" in text:
        # The value is not repeated: an address may hold a password.
        return key, f"expected {EXAMPLES[key.partition('.')[0]]}"
    text = re.sub(
        r"\b[a-z]+\b", lambda word: WORDS.get(word[0], word[0]), text.replace("`", "").replace(" | ", " or ")
    )
    shown = key in kinds() and isinstance(value, str | int | float) and "got" not in text
    return key, text[0].lower() + text[1:] + (f", got {value}" if shown else "")


def near_variable(key: str) -> str:
    """The environment variable that was meant, if there is one."""
    near = get_close_matches(key, kinds(), n=1)
    return f"; did you mean {PREFIX}{near[0].upper().replace('.', '__')}?" if near else ""


def name_of(value: object) -> str:
    """What a value is, without the value: it may be a secret in the wrong place."""
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
