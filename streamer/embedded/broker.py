"""An embedded Kafka: librdkafka's in-process mock cluster, in a process of its own.

`python -m streamer.embedded.broker` prints the bootstrap address and lives until its stdin closes, so it goes
when the process that started it goes. It is for demos and tests of this program. What it does and does not do
(librdkafka 2.16, tried):

- One broker on loopback, in memory. A partition keeps the newest 5 MB as sent: older records vanish whether
  they were read or not, with no error anywhere. A publisher must therefore wait for its readers. A message
  above 5 MB is acknowledged and gone.
- Topics come into being, with 4 partitions, when a producer, a consumer or `list_topics(NAME)` first names
  them. The number cannot be set: there is no `test.mock.default.partitions`.
- There is no controller (metadata name the broker 0, and there is none of that number), so most admin calls
  time out: topics cannot be created, altered, described or deleted through them.
  `list_offsets`, watermarks and committed offsets do work; `list_consumer_groups` is empty, and groups cannot
  be deleted.
- Consumer groups: `classic` with any assignor and with static membership, after an initial rebalance delay
  of 3 s; `group.protocol=consumer` works at once.
- Keys, headers (null values too), timestamps, gzip, snappy, lz4 and zstd, idempotent producers, and
  `enable.partition.eof` are as on a real broker.
- Transactions are accepted and mean nothing: aborted records are delivered, offsets sent to a transaction are
  not stored. No TLS, no SASL, no quotas, no retention by time, no compaction.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from typing import Self

from streamer.errors import StartupError

PARTITIONS = 4


class EmbeddedBroker:
    """The broker for as long as the `with` block lasts."""

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._child: subprocess.Popen[str] | None = None
        self.bootstrap_servers = ""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.poll() if self._child else None

    def __enter__(self) -> Self:
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "streamer.embedded.broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which stops it last
        )
        assert child.stdout is not None
        try:
            answered, _, _ = select.select([child.stdout], [], [], self._timeout)
            self.bootstrap_servers = child.stdout.readline().strip() if answered else ""
        except BaseException:
            self._stop()
            raise
        if not self.bootstrap_servers:
            raise StartupError(f"the embedded broker did not start: {self._stop() or 'it gave no address'}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> str:
        """End it; returns the last line of what it complained about."""
        assert self._child is not None
        try:
            _, complaints = self._child.communicate(timeout=5)  # closes stdin
        except subprocess.TimeoutExpired:
            self._child.kill()
            _, complaints = self._child.communicate()
        return complaints.strip().rpartition("\n")[2]


def main() -> None:
    from confluent_kafka.admin import AdminClient

    quiet = logging.getLogger("streamer.embedded.broker")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    # This client is the cluster: while it lives, the cluster does.
    cluster = AdminClient({"test.mock.num.brokers": 1}, logger=quiet)
    brokers = cluster.list_topics(timeout=20).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    main()
