"""A broker that holds its connections and says nothing: the worst to part from."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from time import monotonic

from streamer.sources.kafka import GOODBYE
from tests.conftest import MakeTopic
from tests.integration.line import Line, wait_until
from tests.servers import KafkaServer

DRAIN = 3.0


def test_a_frozen_broker_does_not_keep_a_worker_from_ending(
    breakable_kafka: KafkaServer, redis_url: str, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """Left to itself the client waits without end for the answer to its last commit and to its goodbye."""

    on_it = partial(make_topic, server=breakable_kafka)
    line = Line(tmp_path, breakable_kafka, redis_url, on_it, partitions=2)
    line.config["limits"] = {"drain_s": DRAIN, "revoke_s": DRAIN}
    worker = line.start()
    try:
        wait_until(lambda: worker.said("partitions assigned"), "an assignment")
        breakable_kafka.suspend()
        line.publish(b'{"text": "to nobody"}', 0)
        since = monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert monotonic() - since < DRAIN + DRAIN + GOODBYE + 5.0
    finally:
        line.close()
        breakable_kafka.resume()
        breakable_kafka.restart()  # it may go on half asleep otherwise, and the next test is not about that
