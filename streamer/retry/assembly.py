"""From a configuration to a mover, as `streamer.app` does for the engine."""

from __future__ import annotations

from streamer.app import (
    connect_state,
    describe_cluster,
    kafka_settings,
    retry_group,
    retry_topics,
    transactional_id,
)
from streamer.codec import Decoder
from streamer.metrics import Metrics
from streamer.retry import clients
from streamer.retry.mover import Mover
from streamer.settings import Config


def build(config: Config, metrics: Metrics) -> Mover:
    """What `streamer retry` does. Raises StartupError or ConfigurationError."""
    cluster = describe_cluster(config)
    deduplicator, dead_letters = connect_state(config, cluster.generations, metrics)
    consumer, producer = (
        kafka_settings(config, own) for own in (config.kafka.consumer, config.kafka.producer)
    )
    reader = clients.consumer(consumer, retry_group(config), metrics)
    try:
        return Mover(
            reader,
            clients.shipper(producer, f"{transactional_id(config)}-retry"),
            levels=retry_topics(config),
            prefix=config.topics.retry,
            input=config.topics.input,
            dead_letters=config.topics.dead_letters,
            partitions=cluster.partitions,
            decoder=Decoder(*config.input.decoding),
            deduplicator=deduplicator,
            index=dead_letters,
            metrics=metrics,
        )
    except BaseException:
        reader.close()  # the caller tries again, for as long as an outage lasts
        raise
