"""How members share partitions out, where nobody says it."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.sources.group import ASSIGNOR, with_assignor


@pytest.mark.parametrize(
    ("settings", "assignor"),
    [
        ({}, "cooperative-sticky"),
        ({"group.instance.id": "slot-0"}, "range"),
        ({"group.instance.id": "slot-0", ASSIGNOR: "cooperative-sticky"}, "cooperative-sticky"),
        ({"group.protocol": "consumer", "group.instance.id": "slot-0"}, None),
        ({"group.protocol": "consumer", ASSIGNOR: "range"}, None),
    ],
    ids=["dynamic", "static", "as one wants", "KIP-848", "KIP-848 knows none"],
)
def test_static_members_do_not_share_cooperatively(settings: dict[str, Any], assignor: str | None) -> None:
    assert with_assignor(settings).get(ASSIGNOR) == assignor
