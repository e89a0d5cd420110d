"""What may be shown of settings and addresses: no secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
# A librdkafka property that is a secret. Locations are shown: `ssl.key.location` gives nothing away.
SECRET = re.compile(r"password|passphrase|secret|token(?!\.endpoint)|credential|\.pem$|oauthbearer\.config$")


def hide(name: str, value: Any) -> Any:
    """The value as it may be shown: secrets replaced, and the user info and query of an address cut out."""
    if isinstance(value, Mapping):
        return {key: hide(key, inner) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    return HIDDEN if SECRET.search(name.lower()) else without_credentials(value)


def without_credentials(address: str) -> str:
    """`redis://user:password@host/0?password=x` as `redis://***@host/0`; other strings as they are.

    By hand, not by urlsplit: it refuses some addresses, and a refused one must not be shown whole either.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    if "@" in rest.partition("?")[2]:
        return f"{scheme}://{HIDDEN}"  # a password with a "?" in it, or a query with an "@": show neither
    place = rest.partition("?")[0]
    return f"{scheme}://{HIDDEN}@{place.rpartition('@')[2]}" if "@" in place else f"{scheme}://{place}"
