"""`streamer check`: would `streamer run` work, and if not, what to do."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from streamer.app import retry_group, retry_topics
from streamer.cli import clients
from streamer.cli.exposure import exposures
from streamer.cli.hints import command
from streamer.cli.options import add_config, load_config
from streamer.errors import ConfigurationError, StartupError, StreamerError, TransientError
from streamer.redaction import without_credentials
from streamer.settings import Config

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import TopicMetadata

    from streamer.state.connection import Member

NAME = "check"
HELP = "check configuration, broker, topics, Redis, model and device"
UNSHOWN = ("name", "flops_of_text")  # of a model: told before, and what only the metrics reckon with
DEAD_LETTER_HEADERS = 4096  # bytes that a dead letter may add to its record


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """A line for each thing: ok, warn or FAIL and the way out. 0, 2 (configuration) or 3 (anything else)."""
    report = Report(args.config)
    try:
        config = load_config(args)
        _check_properties(config)
    except ConfigurationError as error:
        report.say("FAIL", "configuration", error.detail)
        return error.exit_code
    report.say("ok", "configuration", str(args.config or "defaults and environment"))
    for subject, detail, way_out in exposures(config):
        report.say("warn", subject, detail, way_out)
    _check_kafka(report, config)
    _check_redis(report, config)
    _check_model(report, config)
    return StartupError.exit_code if report.failed else 0


class Report:
    """Prints as it goes: what is slow is seen to be slow."""

    def __init__(self, given: Path | None) -> None:
        from streamer.cli.console import Console

        self.failed = 0
        self.given = given
        self._console = Console(highlight=False)

    def say(
        self, verdict: Literal["ok", "warn", "FAIL"], subject: str, detail: str, way_out: str = ""
    ) -> None:
        """One line, and under it what to do."""
        from rich.text import Text

        self.failed += verdict == "FAIL"
        colour = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}[verdict]
        self._console.print(Text.assemble((f"{verdict:6}", colour), f"{subject:14} {detail}"), soft_wrap=True)
        if way_out:
            self._console.print(Text(f"{'':20} -> {way_out}", style=colour), soft_wrap=True)


def _check_properties(config: Config) -> None:
    """librdkafka knows its properties before it connects. Raises ConfigurationError."""
    clients.admin(config)
    clients.producer(config, {})
    clients.member(config).close()


# -- Kafka -------------------------------------------------------------------------------------------------


def _check_kafka(report: Report, config: Config) -> None:
    admin = clients.admin(config)
    try:
        cluster = clients.describe_cluster(admin, config)
    except StartupError as error:
        report.say("FAIL", "broker", error.detail)
        report.say("warn", "topics", "not checked: no broker")
        return
    # The protocol does not tell the broker's version.
    count = len(cluster.brokers)
    report.say(
        "ok", "broker", f"{config.kafka.bootstrap_servers}: {count} broker(s), cluster {cluster.cluster_id}"
    )
    topics = config.topics
    names = {
        "input": topics.input,
        "output": topics.output,
        "dead letters": topics.dead_letters,
        **{f"retry {level}": name for level, name in enumerate(retry_topics(config), 1)},
    }
    found: dict[str, Mapping[str, str]] = {}
    for role, name in names.items():
        metadata = cluster.topics.get(name)
        if metadata is not None and metadata.partitions:
            found[role] = _settings(report, admin, name)
            _check_topic(report, role, metadata, found[role], brokers=count)
        else:
            report.say("FAIL", "topic", f"{name} ({role}) is missing", command("topics create", report.given))
    _compare_topics(report, config, found)
    if retry_topics(config):
        _check_retries(report, admin, config)


def _check_retries(report: Report, admin: AdminClient, config: Config) -> None:
    """What is delayed comes back by `streamer retry` alone."""
    from confluent_kafka import KafkaException

    group = retry_group(config)
    try:
        answer = admin.describe_consumer_groups([group], request_timeout=clients.TIMEOUT)[group]
        members = len(answer.result(timeout=clients.TIMEOUT + 1).members)
    except (KafkaException, TimeoutError):  # no such group, or no right to look at it
        members = 0
    if members:
        report.say("ok", "retry", f"{members} member(s) of the group {group}")
    else:
        report.say(
            "warn",
            "retry",
            f"retry.policy is delay, and nobody is seen in the group {group}: nothing would come back",
            command("retry", report.given) + ", beside the workers",
        )


def _settings(report: Report, admin: AdminClient, name: str) -> Mapping[str, str]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin._config import ConfigResource
    from confluent_kafka.admin._resource import ResourceType

    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        futures = admin.describe_configs([resource], request_timeout=clients.TIMEOUT)
        entries = futures[resource].result(timeout=clients.TIMEOUT + 1)
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
        report.say("warn", "topic", f"{name}: its settings cannot be read: {reason}")
        return {}
    return {key: str(entry.value) for key, entry in entries.items()}


def _check_topic(
    report: Report, role: str, topic: TopicMetadata, settings: Mapping[str, str], *, brokers: int
) -> None:
    replicas = min(len(partition.replicas) for partition in topic.partitions.values())
    retention, size = settings.get("retention.ms"), settings.get("max.message.bytes")
    detail = f"{topic.topic} ({role}): {len(topic.partitions)} partitions, {replicas} replica(s)"
    detail += f", kept {_days(int(retention))}" if retention else ""
    detail += f", messages up to {int(size):,} bytes" if size else ""
    policy = settings.get("cleanup.policy", "delete")
    alter = f"kafka-configs --alter --topic {topic.topic} --add-config cleanup.policy=delete"
    if policy == "delete":
        report.say("ok", "topic", detail)
    elif role == "dead letters" or role.startswith("retry"):
        report.say("FAIL", "topic", f"{detail}; cleanup.policy {policy}: one record removes another", alter)
    else:
        report.say(
            "warn", "topic", f"{detail}; cleanup.policy {policy}: of one key only the last is kept", alter
        )
    if replicas == 1 and brokers > 1:
        report.say("warn", "topic", f"{topic.topic} has one replica: it is lost with its broker")


def _compare_topics(report: Report, config: Config, found: Mapping[str, Mapping[str, str]]) -> None:
    """What is right for a topic alone and wrong beside the others."""
    input, dead = found.get("input", {}), found.get("dead letters", {})
    size, room = int(input.get("max.message.bytes", 0)), int(dead.get("max.message.bytes", 0))
    if size and room and room < size + DEAD_LETTER_HEADERS:
        topic = config.topics.dead_letters
        report.say(
            "warn",
            "topic",
            f"{topic} takes {room:,} bytes: a record of {size:,} from {config.topics.input} would not fit "
            "with its headers, and would hold its partition",
            f"kafka-configs --alter --topic {topic} --add-config max.message.bytes={size * 2}",
        )
    retention, ttl = int(input.get("retention.ms", 0)), config.deduplication.ttl * 1000
    if config.deduplication.enabled and (retention > ttl or retention < 0):
        kept = _days(retention)
        report.say(
            "warn",
            "topic",
            f"{config.topics.input} is kept {kept}, an id {_days(ttl)}: a late replay is scored again",
            "deduplication.ttl of at least the retention",
        )


# -- Redis, model ------------------------------------------------------------------------------------------


def _check_redis(report: Report, config: Config) -> None:
    if not config.deduplication.enabled:
        report.say("ok", "redis", "not needed: deduplication.enabled is false")
        return
    from streamer.app import connect_redis, redis_claims
    from streamer.state.connection import FAILURES, members, topology

    address = without_credentials(config.redis.url)
    failed = report.failed
    try:
        client = connect_redis(config)
        found = [(member, member.client.info()) for member in members(client)]
        report.say("ok", "redis", f"{address}: {topology(client)}")
        for member, info in found:
            _check_member(report, member, info, cluster=config.redis.cluster)
        if report.failed == failed:
            redis_claims(config, client, {}).check()
    except (*FAILURES, TransientError) as error:
        detail = error.detail if isinstance(error, TransientError) else str(error) or type(error).__name__
        report.say(
            "FAIL",
            "redis",
            f"{address}: {detail}",
            "start it, or set redis.url (STREAMER__REDIS__URL), or deduplication.enabled: false",
        )
    except (ConfigurationError, StartupError) as error:
        report.say("FAIL", "redis", error.detail)


def _check_member(report: Report, member: Member, info: Mapping[str, Any], *, cluster: bool) -> None:
    """A node of it. INFO tells the policy where CONFIG is forbidden too, as managed Redis does it."""
    from streamer.state.connection import OLDEST

    name, version = member.name, str(info.get("redis_version", "0"))
    if info.get("server_name") == "valkey":
        version = f"{version} (Valkey {info.get('valkey_version')})"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        report.say("FAIL", "redis", f"{name}: version {version}", f"Redis {oldest} or newer, or Valkey")
    if member.primary and info.get("role") == "slave":
        report.say("FAIL", "redis", f"{name} is a replica, which takes no writes", "redis.url of its primary")
    if info.get("cluster_enabled") and not cluster:
        report.say("FAIL", "redis", f"{name} is a cluster", "redis.cluster: true")
    policy = str(info.get("maxmemory_policy", "unknown"))
    way_out = f"redis-cli -u redis://{name} CONFIG SET maxmemory-policy noeviction"
    said = f"{name}: version {version}, maxmemory-policy {policy}"
    if policy == "noeviction":
        report.say("ok", "redis", said)
    elif info.get("maxmemory"):
        report.say("FAIL", "redis", f"{said} drops ids in silence: duplicates", way_out)
    else:
        report.say("warn", "redis", f"{said} would drop ids once maxmemory is set", way_out)


def _check_model(report: Report, config: Config) -> None:
    from streamer.app import load_backend

    model = config.model
    try:
        backend = load_backend(config)
    except StreamerError as error:
        report.say("FAIL", "model", error.detail or str(error))
        return
    except ImportError as error:
        report.say("FAIL", "model", f"{model.name}: {error}", "pip install 'streamer[torch]'")
        return
    described: dict[str, Any] = getattr(backend, "describe", dict)()
    device = described.pop("device", None)
    details = ", ".join(f"{name} {_shown(value)}" for name, value in described.items() if name not in UNSHOWN)
    report.say("ok", "model", f"{backend.name}: {details}")
    if device is not None:
        report.say("ok", "device", str(device))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(one) for one in value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _days(milliseconds: int) -> str:
    if milliseconds < 0:
        return "for ever"
    days = round(milliseconds / 86_400_000, 1)
    return f"{days:g} days" if days >= 1 else f"{milliseconds / 3_600_000:.2g} hours"
