"""From a configuration to an engine: the only file that names concrete classes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streamer import __version__
from streamer.backends import ready
from streamer.cluster import Cluster, describe
from streamer.codec import Decoder, encode
from streamer.delays import RetryPolicy, topics_of
from streamer.engine import Engine
from streamer.errors import StartupError, TransientError
from streamer.ledger import Ledger
from streamer.limits import Limits
from streamer.metrics import Metrics
from streamer.protocols import Backend, DeadLetterQueue, Deduplicator, Sink
from streamer.records import Envelope, Job
from streamer.sizing import TokenBudget
from streamer.window import Window
from streamer.worker import ThreadWorker

if TYPE_CHECKING:
    from streamer.config import Config
    from streamer.sources.group import KafkaGroup
    from streamer.state.connection import Client
    from streamer.state.redis import RedisDeduplicator
    from streamer.tracing import Tracing


class Model(Backend, Protocol):
    """A backend that can say what it is, for the log and the metrics.

    `threads` is how many batches it wants to have at a time, each in a thread of its own; `does_not_fit` the
    tokens of a batch for which it has no memory, as far as its warm-up could tell.
    """

    threads: int
    does_not_fit: int | None

    def describe(self) -> dict[str, Any]: ...


def build(config: Config, metrics: Metrics | None = None) -> Engine:
    """Connect everything and load the model. Raises StartupError or ConfigurationError.

    `metrics` say meanwhile how far it is.
    """
    from streamer.sources.kafka import KafkaSource

    metrics = metrics or Metrics()
    metrics.stage = "connecting to Kafka"
    topics, cluster = config.topics, describe_cluster(config)
    metrics.stage = "connecting to Redis"
    deduplicator, dead_letters = connect_state(config, cluster.generations, metrics)
    metrics.stage = "loading the model"
    backend = load_backend(config)
    _introduce(config, backend.describe(), metrics)
    source = KafkaSource(topics.input, kafka_settings(config, config.kafka.consumer, group=True), metrics)
    tracing = _tracing(config)
    sink = _sink(config, source.group, cluster, metrics, tracing.encode if tracing else encode)
    window, limits = config.window, config.limits
    engine = Engine(
        source=source,
        sink=sink,
        backend=backend,
        worker=ThreadWorker(tracing.backend(backend) if tracing else backend, threads=backend.threads),
        decoder=Decoder(*config.input.decoding),
        deduplicator=deduplicator,
        dead_letters=dead_letters,
        window=Window(
            max_records=window.max_records,
            max_bytes=window.max_bytes,
            max_age=window.max_age_ms / 1000,
            linger=window.linger_ms / 1000,
        ),
        budget=new_budget(config, backend),
        ledger=Ledger(window.max_in_flight_bytes),
        limits=Limits(
            drain=limits.drain_s,
            revoke=limits.revoke_s,
            hang=limits.hang_s,
            max_attempts=limits.max_attempts,
            dead_letter_share=limits.dead_letter_share,
            dead_letters_in_a_row=limits.dead_letters_in_a_row,
            dead_letters_counted=limits.dead_letters_counted,
            retries=RetryPolicy(config.retry.policy, config.retry.deadline, config.retry.delays),
        ),
        metrics=metrics,
    )
    metrics.stage = "running"
    return engine


def _introduce(config: Config, model: Mapping[str, Any], metrics: Metrics) -> None:
    """Who this worker is, for whoever looks at many."""
    named = ("name", "revision", "device", "precision", "quantize", "attention", "path")
    metrics.model = {name: str(model[name]) for name in named if name in model}
    if "attention" in model:
        metrics.attention_fallback = "attention_reason" in model
    if "flops_of_text" in model:
        metrics.flops, metrics.flops_of_text = 0.0, model["flops_of_text"]
    metrics.peak_flops, metrics.device_uuid = model.get("peak_flops"), model.get("device_uuid")
    metrics.worker = {
        "version": __version__,
        "group": config.kafka.group_id,
        "topic": config.topics.input,
        "delivery": config.delivery,
        "backend": config.model.backend,
        "on_outage": config.deduplication.on_outage,
    }


def new_budget(config: Config, backend: Model) -> TokenBudget:
    """As configured, and knowing no more of the device than what does not fit into it."""
    batching = config.batching
    budget = TokenBudget(
        max_texts=batching.max_texts,
        max_tokens=batching.max_tokens,
        max_latency=batching.max_latency_ms / 1000,
        adaptive=batching.sizing == "auto",
        cost=backend.cost,
    )
    if backend.does_not_fit is not None:
        budget.shrink(backend.does_not_fit)
    return budget


def model_folder(config: Config) -> Path:
    """Where the model's files are. Raises StartupError when there is no such model."""
    from streamer.backends.torch.location import locate

    return locate(config.model.name, config.model.revision).folder


def load_backend(config: Config) -> Model:
    """The model, warmed up. Raises StartupError or ConfigurationError."""
    model = config.model
    if model.backend == "fake":
        from streamer.backends.fake import FakeBackend

        fake = config.fake
        return FakeBackend(base_ms=fake.base_ms, per_text_us=fake.per_text_us, per_token_us=fake.per_token_us)
    began = time.monotonic()  # before torch is imported, which takes its time too
    from streamer.backends.torch import TorchBackend
    from streamer.backends.torch.long_texts import LongTexts

    backend = TorchBackend.load(
        model.name,
        revision=model.revision,
        device=model.device,
        runtime=model.runtime,
        precision=model.precision,
        quantize=model.quantize,
        max_drift=model.max_drift,
        sample=model.sample,
        max_length=model.max_length,
        task=model.task,
        long_texts=LongTexts(model.long_texts, model.window_overlap, model.max_windows, model.window_pooling),
    )
    ready(loading=time.monotonic() - began, warming=backend.warm_up(), described=backend.describe())
    return backend


def _tracing(config: Config) -> Tracing | None:
    if config.ops.tracing == "none":
        return None
    try:
        from streamer.tracing import Tracing, connect
    except ImportError as error:
        raise StartupError(
            f"ops.tracing: otlp needs OpenTelemetry ({error}); pip install 'streamer[otel]'"
        ) from error
    return Tracing(connect(), encode, group=config.kafka.group_id)


def _sink(
    config: Config, group: KafkaGroup, cluster: Cluster, metrics: Metrics, encode: Callable[[Job], Envelope]
) -> Sink:
    from streamer.sinks.topics import Topics

    settings = kafka_settings(config, config.kafka.producer)
    topics = Topics(
        config.topics.output,
        config.topics.dead_letters,
        cluster.partitions,
        retry_topics(config),
        cluster.limits,
    )
    if config.delivery == "at_least_once":
        from streamer.sinks.kafka import KafkaSink

        return KafkaSink(settings, topics, encode=encode, metrics=metrics)
    from streamer.sinks.transactional import TransactionalSink

    return TransactionalSink(
        settings,
        topics,
        transactional_id=transactional_id(config),
        group=group,
        encode=encode,
        interval=config.kafka.transaction_interval_ms / 1000,
        metrics=metrics,
    )


def retry_group(config: Config) -> str:
    """The consumer group of `streamer retry`."""
    return f"{config.kafka.group_id}-retry"


def transactional_id(config: Config) -> str:
    """The same after a restart of this worker, and no other worker's at the same time."""
    slot = config.kafka.consumer.get("group.instance.id") or socket.gethostname()
    return config.kafka.transactional_id or f"{config.kafka.group_id}.{slot}"


def describe_cluster(config: Config) -> Cluster:
    """What the broker says of the topics. Raises StartupError when it is away or a topic is missing."""
    topics = config.topics
    outputs = [topics.output, topics.dead_letters, *retry_topics(config)]
    return describe(kafka_settings(config, {}), topics.input, outputs)


def retry_topics(config: Config) -> list[str]:
    """The topic of each delay; none unless records are delayed."""
    return topics_of(config.topics.retry, config.retry.delays) if config.retry.policy == "delay" else []


def kafka_settings(config: Config, own: Mapping[str, Any], *, group: bool = False) -> dict[str, Any]:
    """librdkafka's settings for a client: the shared ones, then its own."""
    settings = {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "client.id": f"streamer-{socket.gethostname()}",
        **config.kafka.properties,
        **own,
    }
    return settings | {"group.id": config.kafka.group_id} if group else settings


def connect_redis(config: Config) -> Client:
    """Raises ConfigurationError, and TransientError when it is a cluster that is away."""
    from streamer.state.connection import connect

    redis = config.redis
    return connect(
        redis.urls,
        username=redis.username,
        password=redis.password,
        cluster=redis.cluster,
        sentinel=redis.sentinel,
        sentinel_password=redis.sentinel_password,
        ca=redis.ca,
        certificate=redis.certificate,
        key=redis.key,
    )


def connect_state(
    config: Config, generations: Mapping[str, str], metrics: Metrics
) -> tuple[Deduplicator, DeadLetterQueue]:
    if not config.deduplication.enabled:
        from streamer.state.memory import MemoryDeadLetters, NoDeduplication

        return NoDeduplication(), MemoryDeadLetters()
    from streamer.state.index import RedisDeadLetters

    try:
        client = connect_redis(config)
    except TransientError as error:
        raise StartupError(f"{error.detail}; set redis.url, or deduplication.enabled: false") from error
    claims = redis_claims(config, client, generations, metrics)
    claims.check()
    return claims, RedisDeadLetters(client, prefix=f"{state_prefix(config)}dead:")


def redis_claims(
    config: Config, client: Client, generations: Mapping[str, str], metrics: Metrics | None = None
) -> RedisDeduplicator:
    """Deduplication over this client. Asks nothing yet."""
    from streamer.state.redis import RedisDeduplicator

    return RedisDeduplicator(
        client,
        prefix=state_prefix(config),
        ttl=int(config.deduplication.ttl),
        generations=generations,
        on_outage=config.deduplication.on_outage,
        metrics=metrics,
    )


def state_prefix(config: Config) -> str:
    """What the keys of this group in Redis begin with."""
    return f"streamer:{config.kafka.group_id}:"
