"""Input that somebody will send one day, and what must become of it: `reason` is None for a result."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

MAX_BYTES = 512 * 1024


class Case(NamedTuple):
    name: str
    value: bytes
    reason: str | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def _json(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


JSON = [
    # Not JSON at all.
    Case("nothing", b"", "invalid_json"),
    Case("a NUL byte", b"\0", "invalid_json"),
    Case("white space", b" \n\t ", "invalid_json"),
    Case("plain text", b"what a nice film", "invalid_json"),
    Case("cut off", b'{"text": "what a ni', "invalid_json"),
    Case("single quotes", b"{'text': 'nice'}", "invalid_json"),
    Case("something behind it", b'{"text": "nice"} {"text": "bad"}', "invalid_json"),
    Case("a comma too many", b'{"text": "nice",}', "invalid_json"),
    Case("byte order mark", b'\xef\xbb\xbf{"text": "nice"}', "invalid_json"),
    Case("UTF-16", '{"text": "nice"}'.encode("utf-16"), "invalid_json"),
    Case("GBK", '{"text": "\u4e0d\u9519"}'.encode("gbk"), "invalid_json"),
    Case("a byte that is not UTF-8", b'{"text": "caf\xe9"}', "invalid_json"),
    Case("not UTF-8 in meta", b'{"text": "nice", "meta": {"name": "caf\xe9"}}', "invalid_json"),
    Case("overlong NUL", b'{"text": "a\xc0\x80b"}', "invalid_json"),
    Case("surrogate in UTF-8", b'{"text": "\xed\xa0\x80"}', "invalid_json"),
    Case("lone high surrogate", b'{"text": "a \\ud83d b"}', "invalid_json"),
    Case("lone low surrogate", b'{"text": "\\ude00"}', "invalid_json"),
    Case("lone surrogate in the id", b'{"text": "nice", "id": "\\ud800"}', "invalid_json"),
    Case("lone surrogate in meta", b'{"text": "nice", "meta": "\\ud800"}', "invalid_json"),
    Case("NaN", b'{"text": "nice", "meta": NaN}', "invalid_json"),
    Case("the text is NaN", b'{"text": NaN}', "invalid_json"),
    Case("Infinity", b'{"text": "nice", "meta": [Infinity]}', "invalid_json"),
    Case("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "invalid_json"),
    # JSON of another shape.
    Case("null", b"null", "invalid_type"),
    Case("a list", b'["nice"]', "invalid_type"),
    Case("a string", b'"nice"', "invalid_type"),
    Case("a number", b"17", "invalid_type"),
    Case("an empty object", b"{}", "invalid_type"),
    Case("the text is missing", b'{"id": "1", "review": "nice"}', "invalid_type"),
    Case("the text is null", b'{"text": null}', "invalid_type"),
    Case("the text is a number", b'{"text": 17}', "invalid_type"),
    Case("the text is a list", b'{"text": ["nice"]}', "invalid_type"),
    Case("the id is true", b'{"text": "nice", "id": true}', "invalid_type"),
    Case("the id is a list", b'{"text": "nice", "id": [1]}', "invalid_type"),
    Case("the id is a fraction", b'{"text": "nice", "id": 1.5}', "invalid_type"),
    Case("the id has 5,000 digits", b'{"text": "nice", "id": ' + b"9" * 5000 + b"}", "invalid_type"),
    # Too much of it.
    Case("100,000 levels", b'{"text": "nice", "meta": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    Case("100,000 levels never closed", b'{"text": "nice", "meta": ' + b"[" * 100_000, "too_deep"),
    Case("1 MB of text", _json(text="nice film " * 104_858), "too_large"),
    Case("1 MB of white space", b" " * 1_048_576, "too_large"),
    # Nothing to score.
    Case("no text", b'{"text": ""}', "empty_text"),
    Case("a blank text", b'{"text": "  \\n\\t "}', "empty_text"),
    Case("ideographic spaces", _json(text="\u3000\u3000"), "empty_text"),
    Case("an id that is not UTF-8", b'{"text": "nice"}', "invalid_id", (("id", b"\xff\xfe"),)),
    # Odd, and fine.
    Case("no id", b'{"text": "nice"}', None),
    Case("only emoji", _json(text="\U0001f600\U0001f44d\U0001f3fd", id="emoji"), None),
    Case("a surrogate pair", b'{"text": "\\ud83d\\ude00 nice", "id": "pair"}', None),
    Case("NUL in the text", b'{"text": "ni\\u0000ce", "id": "nul"}', None),
    Case("only NUL", b'{"text": "\\u0000", "id": "only-nul"}', None),
    Case("control characters", b'{"text": "\\u0007\\u001b[31mnice", "id": "\\u0007"}', None),
    Case("right to left", _json(text="\u202egnp.exe \u0645\u0645\u062a\u0627\u0632", id="rtl"), None),
    Case("combining marks", _json(text="n\u0323" + "\u0300" * 500 + "ice", id="zalgo"), None),
    Case("a text of 100,000 characters", _json(text="nice film " * 10_000, id="long"), None),
    Case("the id is 0", b'{"text": "nice", "id": 0}', None),
    Case("the id is empty", b'{"text": "nice and empty", "id": ""}', None),
    Case("the id is beyond 64 bits", b'{"text": "nice", "id": 123456789012345678901234567890}', None),
    Case("the id has 10,000 characters", _json(text="nice", id="x" * 10_000), None),
    Case("an id with odd characters", _json(text="nice", id="a:b\n{c}*?\0\u00e9"), None),
    Case("duplicated keys, the last counts", b'{"text": 1, "text": "nice", "id": "twice"}', "invalid_type"),
    Case("unknown keys", b'{"text": "nice", "id": "extra", "lang": "en", "x": [1, {"y": null}]}', None),
    Case("meta is null", b'{"text": "nice", "id": "null-meta", "meta": null}', None),
    Case("meta holds 1e999", b'{"text": "nice", "id": "big-float", "meta": 1e999}', None),
    Case("meta holds 5,000 digits", b'{"text": "nice", "id": "i", "meta": ' + b"9" * 5000 + b"}", None),
    Case("meta has 500 levels", b'{"text": "n", "id": "d", "meta": ' + b"[" * 500 + b"]" * 500 + b"}", None),
    Case("white space around it", b' \n {"text": "nice", "id": "space"} \n', None),
    Case("an id header that is empty", b'{"text": "nice", "id": "body"}', None, (("id", b""), ("id", None))),
    Case("headers under our prefix", b'{"text": "nice", "id": "fake"}', None, (("dlq.reason", b"no"),)),
]

_pack = msgspec.msgpack.encode

MSGPACK = [
    Case("nothing", b"", "invalid_msgpack"),
    Case("cut off", _pack({"text": "nice"})[:-1], "invalid_msgpack"),
    Case("something behind it", _pack({"text": "nice"}) + b"\xc0", "invalid_msgpack"),
    Case("never used code", b"\xc1", "invalid_msgpack"),
    Case("a byte that is not UTF-8", b"\x81\xa4text\xa1\xe9", "invalid_msgpack"),
    Case("JSON", b'{"text": "nice"}', "invalid_type"),
    Case("nil", b"\xc0", "invalid_type"),
    Case("the text is bytes", _pack({"text": b"nice"}), "invalid_type"),
    Case("a meta that JSON cannot say", b"\x82\xa4text\xa1a\xa4meta\xd4\x05\x00", "invalid_type"),
    Case("a meta with lists for keys", b"\x82\xa4text\xa1a\xa4meta\x81\x90\x01", "invalid_type"),
    Case("a length beyond the end", b"\x81\xa4text\xdb\xff\xff\xff\xff", "invalid_msgpack"),
    Case("50,000 levels", b"\x82\xa4text\xa1a\xa4meta" + b"\x91" * 50_000 + b"\xc0", "too_deep"),
    Case("no text", _pack({"text": ""}), "empty_text"),
    Case("fine", _pack({"text": "nice", "id": 7, "meta": {"a": [1, None]}}), None),
    Case("NaN in meta", _pack({"text": "nice", "id": "nan", "meta": float("nan")}), None),
    Case("bytes in meta", _pack({"text": "nice", "id": "bytes", "meta": b"\xff"}), None),
]

TEXT = [
    Case("nothing", b"", "empty_text"),
    Case("a blank text", b" \n", "empty_text"),
    Case("a byte that is not UTF-8", b"caf\xe9", "invalid_utf8"),
    Case("surrogate in UTF-8", b"\xed\xa0\x80", "invalid_utf8"),
    Case("1 MB of text", b"nice film " * 104_858, "too_large"),
    Case("fine", "\u5f88\u597d\u770b".encode(), None),
    Case("looks like JSON", b'{"text": ""}', None),
]
