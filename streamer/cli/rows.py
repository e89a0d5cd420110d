"""Texts out of files: lines, JSON lines or CSV, plain or gzip.

Bytes that are no UTF-8 come out as surrogates, which cannot be encoded again: so the row that holds them can
be refused, instead of the file, and nothing is replaced in silence.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from streamer.errors import StreamerError, UsageError

Format = Literal["lines", "jsonl", "csv"]
Contents = gzip.GzipFile | io.BufferedReader
SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
LONGEST_FIELD = 1 << 30  # csv's own default, 128 KB, is less than a legal record


class Row(NamedTuple):
    """A text to publish; `line` is where it ends in the file, from 1."""

    line: int
    text: str
    id: str | int | None = None
    key: str | None = None
    meta: Any = None


class Refused(NamedTuple):
    """A row that has no text that could be published, and why."""

    line: int
    reason: str


class Fields(NamedTuple):
    """Which columns are what. `id` and `key` None: the column `id` if there is one, and no key."""

    text: str = "text"
    id: str | None = None
    key: str | None = None
    meta: bool = False


def format_of(name: str) -> Format:
    """By the file's extension, less .gz; lines when it says nothing."""
    return SUFFIXES.get(Path(name.removesuffix(".gz")).suffix.lower(), "lines")


@contextmanager
def opened(name: str) -> Iterator[tuple[Contents, io.BufferedReader]]:
    """The contents of a file (or "-") and the file itself, whose position tells the progress.

    Raises UsageError when it cannot be opened.
    """
    try:
        raw = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    with raw:
        assert isinstance(raw, io.BufferedReader)
        zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        contents: Contents = gzip.GzipFile(fileobj=raw) if zipped else raw
        yield contents, raw


def read(contents: Contents, format: Format, fields: Fields, name: str) -> Iterator[Row | Refused]:
    """The rows. Raises UsageError for a CSV without the columns, StreamerError for a broken file."""
    # A CSV field may hold line breaks, which the csv module wants as they are; elsewhere "\n" ends a line.
    newline = "" if format == "csv" else "\n"
    text = io.TextIOWrapper(contents, encoding="utf-8-sig", errors="surrogateescape", newline=newline)
    rows = {"lines": _lines, "jsonl": _json_lines, "csv": _csv}[format]
    try:
        for row in rows(text, fields, name):
            empty = isinstance(row, Row) and (not row.text or row.text.isspace())
            yield Refused(row.line, "the text is empty") if empty else row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StreamerError(
            f"{name} is a damaged gzip file ({error}); what came before was published"
        ) from None
    finally:
        text.detach()  # whoever opened the file closes it


def _lines(text: IO[str], fields: Fields, name: str) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        yield Row(number, line.rstrip("\r\n"))


def _json_lines(text: IO[str], fields: Fields, name: str) -> Iterator[Row | Refused]:
    for number, line in enumerate(text, 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            yield Refused(number, "not JSON")
            continue
        if not isinstance(row, dict):
            yield Refused(number, "not a JSON object")
            continue
        yield _row(number, row, fields)


def _csv(text: IO[str], fields: Fields, name: str) -> Iterator[Row | Refused]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(text)
    try:
        columns = reader.fieldnames or []
        for option, column in (
            ("--text-field", fields.text),
            ("--id-field", fields.id),
            ("--key-field", fields.key),
        ):
            if column is not None and column not in columns:
                raise UsageError(
                    f"{name} has no column '{column}', only {', '.join(columns) or 'an empty first line'}: "
                    f"name the right one with {option}"
                )
        for row in reader:
            if None in row:
                yield Refused(reader.line_num, "more fields than the first line has names")
            else:
                yield _row(reader.line_num, {k: v for k, v in row.items() if v is not None}, fields)
    except csv.Error as error:
        raise StreamerError(
            f"{name}, line {reader.line_num}: {error}; what came before was published"
        ) from None


def _row(line: int, row: Mapping[str, Any], fields: Fields) -> Row | Refused:
    id_field = fields.id or "id"
    text = row.get(fields.text)
    if text is None:
        return Refused(line, f"no '{fields.text}'")
    if not isinstance(text, str):
        return Refused(line, f"'{fields.text}' is not a string")
    id, key = row.get(id_field), row.get(fields.key) if fields.key else None
    for name, value in ((id_field, id), (fields.key, key)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            return Refused(line, f"'{name}' is neither a string nor a whole number")
    meta = row.get("meta")
    if fields.meta:
        meta = {name: value for name, value in row.items() if name not in (fields.text, id_field)}
    return Row(line, text, None if id == "" else id, None if key is None else str(key), meta)
