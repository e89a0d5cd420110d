"""`desk`: a line on a real Kafka and Redis, and `streamer dlq` over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTopic
from tests.integration.dlq import Desk
from tests.integration.line import Line
from tests.servers import KafkaServer


@pytest.fixture
def desk(
    kafka: KafkaServer,
    redis_url: str,
    make_topic: MakeTopic,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Desk]:
    line = Line(tmp_path, kafka, redis_url, make_topic, 2)
    yield Desk(line, tmp_path, capfd)
    line.close()
