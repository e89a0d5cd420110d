"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from streamer.redaction import hide

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Microseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Topic = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Name = Annotated[str, Meta(min_length=1)]
# Values are strings once they are loaded: numbers and booleans of the file are written out for librdkafka.
Properties = dict[str, str]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration. What it prints of itself hides secrets."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, value if isinstance(value, Section) else hide(name, value)) for name, value in fields]
