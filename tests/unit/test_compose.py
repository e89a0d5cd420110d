"""docker-compose.yml, as far as it can be told without an engine that runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.config import load

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))[
    "services"
]
OURS = ("topics", "streamer", "publisher")


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_images_of_others_are_pinned_by_version(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_reaches_it(name: str) -> None:
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", SERVICES)
def test_who_waits_for_health_waits_for_somebody_with_a_health_check(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            # The worker's is in its image.
            assert "test" in SERVICES[other].get("healthcheck", {}) or other == "streamer", other


@pytest.mark.parametrize("name", SERVICES)
def test_what_it_mounts_is_in_the_repository(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert not source.startswith("./") or (ROOT / source).is_dir(), source


@pytest.mark.parametrize("name", OURS)
def test_ours_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_docker_waits_for_a_drain() -> None:
    drain = load(ROOT / "config/container.yaml", {}).limits.drain_s
    assert float(SERVICES["streamer"]["stop_grace_period"].removesuffix("s")) > drain


def test_the_brokers_that_the_image_asks_for_are_those_of_compose() -> None:
    config = load(ROOT / "config/container.yaml", {})
    assert f"INTERNAL://{config.kafka.bootstrap_servers}" in str(SERVICES["kafka"]["environment"])
    assert config.redis.url.startswith("redis://redis:")
