"""From a configuration to an engine: the only file that names concrete classes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamer.codec import Decoder, encode
from streamer.engine import Engine, Limits
from streamer.errors import StartupError
from streamer.ledger import Ledger
from streamer.protocols import Backend, DeadLetterQueue, Deduplicator
from streamer.sizing import TokenBudget
from streamer.window import Window
from streamer.worker import ThreadWorker

if TYPE_CHECKING:
    from streamer.config import Config

log = logging.getLogger(__name__)

BROKER_TIMEOUT = 10.0  # seconds for the broker's first answer


def build(config: Config) -> Engine:
    """Connect everything and load the model. Raises StartupError or ConfigurationError."""
    from streamer.sinks.kafka import KafkaSink
    from streamer.sources.kafka import KafkaSource

    partitions, generations = describe_topics(config)
    deduplicator, dead_letters = _state(config, generations)
    backend = load_backend(config)
    source = KafkaSource(config.topics.input, kafka_settings(config, config.kafka.consumer, group=True))
    sink = KafkaSink(
        kafka_settings(config, config.kafka.producer),
        results=config.topics.output,
        dead_letters=config.topics.dead_letters,
        partitions=partitions,
        encode=encode,
    )
    window, batching, limits = config.window, config.batching, config.limits
    engine = Engine(
        source=source,
        sink=sink,
        backend=backend,
        worker=ThreadWorker(backend),
        decoder=Decoder(config.input.format, config.input.id_from, config.input.max_bytes),
        deduplicator=deduplicator,
        dead_letters=dead_letters,
        window=Window(
            max_records=window.max_records,
            max_bytes=window.max_bytes,
            max_age=window.max_age_ms / 1000,
            linger=window.linger_ms / 1000,
        ),
        budget=TokenBudget(
            max_texts=batching.max_texts,
            max_tokens=batching.max_tokens,
            max_latency=batching.max_latency_ms / 1000,
            adaptive=batching.sizing == "auto",
        ),
        ledger=Ledger(window.max_in_flight_bytes),
        limits=Limits(drain=limits.drain_s, revoke=limits.revoke_s, hang=limits.hang_s),
    )
    if config.ops.port is not None:
        from streamer.ops import OpsServer

        ops = OpsServer(engine.metrics, config.ops.host, config.ops.port)
        log.info("metrics and health at http://%s:%d/", config.ops.host, ops.port)
    return engine


def load_backend(config: Config) -> Backend:
    """The model, warmed up. Raises StartupError or ConfigurationError."""
    model = config.model
    if model.backend == "fake":
        from streamer.backends.fake import FakeBackend

        fake = config.fake
        return FakeBackend(base_ms=fake.base_ms, per_text_us=fake.per_text_us, per_token_us=fake.per_token_us)
    from streamer.backends.torch import TorchBackend

    backend = TorchBackend.load(
        model.name,
        revision=model.revision,
        device=model.device,
        precision=model.precision,
        max_length=model.max_length,
        task=model.task,
    )
    seconds = backend.warm_up()
    log.info("model ready after %.1f s", seconds, extra={"model": backend.describe()})
    return backend


def kafka_settings(config: Config, own: Mapping[str, Any], *, group: bool = False) -> dict[str, Any]:
    """librdkafka's settings for a client: the shared ones, then its own."""
    settings = {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "client.id": f"streamer-{socket.gethostname()}",
        **config.kafka.properties,
        **own,
    }
    return settings | {"group.id": config.kafka.group_id} if group else settings


def describe_topics(config: Config) -> tuple[dict[str, int], dict[str, str]]:
    """The number of partitions of each topic, and what tells the topic from others of its name.

    Raises StartupError when the broker does not answer or a topic is missing.
    """
    from confluent_kafka import KafkaException, TopicCollection
    from confluent_kafka.admin import AdminClient

    needed = [config.topics.input, config.topics.output, config.topics.dead_letters]
    settings = kafka_settings(config, {}) | {"error_cb": _ignore_until_timeout, "logger": log}
    admin = AdminClient(settings)
    try:
        cluster = admin.list_topics(timeout=BROKER_TIMEOUT)
    except KafkaException as error:
        raise StartupError(
            f"no Kafka broker answers at {config.kafka.bootstrap_servers} ({error.args[0].name()}): "
            "check kafka.bootstrap_servers and kafka.properties"
        ) from error
    known = cluster.topics
    missing = [name for name in needed if name not in known or not known[name].partitions]
    if missing:
        raise StartupError(f"no topic {', '.join(missing)}: create it with `streamer topics create`")
    partitions = {name: len(known[name].partitions) for name in needed}
    generations: dict[str, str] = {}
    if cluster.controller_id not in cluster.brokers:
        return partitions, generations  # librdkafka's in-process broker, which knows no topic ids
    try:
        futures = admin.describe_topics(
            TopicCollection([config.topics.input]), request_timeout=BROKER_TIMEOUT
        )
        for name, future in futures.items():
            # 12 of the 22 characters tell two topics apart, and every claim carries them.
            generations[name] = str(future.result().topic_id)[:12]
    except KafkaException as error:
        log.warning(
            "the broker tells no topic ids; claims would outlive a topic that is created anew: %s", error
        )
    return partitions, generations


def _state(config: Config, generations: Mapping[str, str]) -> tuple[Deduplicator, DeadLetterQueue]:
    if not config.deduplication.enabled:
        from streamer.state.memory import MemoryDeadLetters, NoDeduplication

        return NoDeduplication(), MemoryDeadLetters()
    from streamer.state.redis import RedisDeadLetters, RedisDeduplicator, connect

    client = connect(config.redis.url)
    prefix = f"streamer:{config.kafka.group_id}:"
    deduplicator = RedisDeduplicator(
        client,
        prefix=prefix,
        ttl=int(config.deduplication.ttl),
        generations=generations,
        on_outage=config.deduplication.on_outage,
    )
    deduplicator.check()
    return deduplicator, RedisDeadLetters(client, prefix=f"{prefix}dead:")


def _ignore_until_timeout(error: Any) -> None:
    """What keeps the broker from answering is said once, when the time is up."""
    log.debug("admin: %s", error)
