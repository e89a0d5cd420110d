"""What `streamer check` warns of without asking anybody."""

from __future__ import annotations

import pytest

from streamer.cli.exposure import beyond_loopback, exposures
from streamer.config import load


@pytest.mark.parametrize(
    ("address", "beyond"),
    [
        ("localhost:9092", False),
        ("127.0.0.1:9092", False),
        ("127.8.0.1", False),
        ("[::1]:9092", False),
        ("PLAINTEXT://localhost:9092", False),
        ("kafka:9092", True),
        ("10.0.0.7:9092", True),
        ("localhost.example.org:9092", True),
    ],
)
def test_loopback_is_known(address: str, beyond: bool) -> None:
    assert beyond_loopback([address]) is beyond
    assert beyond_loopback(["localhost:1", address]) is beyond


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, []),
        ({"REDIS__URL": "unix:///run/redis.sock"}, []),
        ({"REDIS__URL": "redis://redis:6379/0"}, ["no TLS", "no user"]),
        ({"REDIS__URL": "redis://redis:6379/0", "DEDUPLICATION__ENABLED": "false"}, []),
        ({"REDIS__URL": "redis://me:word@redis:6379/0"}, ["no TLS"]),
        ({"REDIS__URL": "rediss://redis:6379/0"}, ["no user"]),
        ({"REDIS__URL": "rediss://redis:6379/0", "REDIS__USERNAME": "me"}, []),
        ({"KAFKA__BOOTSTRAP_SERVERS": "kafka:9092"}, ["PLAINTEXT"]),
        ({"KAFKA__BOOTSTRAP_SERVERS": "localhost:1,kafka:9092"}, ["PLAINTEXT"]),
        ({"KAFKA__BOOTSTRAP_SERVERS": "kafka:1", "KAFKA__PROPERTIES__SECURITY_PROTOCOL": "ssl"}, []),
        (
            {"KAFKA__BOOTSTRAP_SERVERS": "kafka:1", "KAFKA__PROPERTIES__SECURITY_PROTOCOL": "sasl_plaintext"},
            ["SASL_PLAINTEXT"],
        ),
    ],
)
def test_what_is_open_to_others_is_told(environ: dict[str, str], says: list[str]) -> None:
    config = load(None, {f"STREAMER__{key}": value for key, value in environ.items()})
    found = list(exposures(config))
    assert len(found) == len(says)
    assert all(said in detail for said, (_, detail, _) in zip(says, found, strict=True))
