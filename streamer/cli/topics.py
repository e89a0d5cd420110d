"""`streamer topics create`: the topics that the configuration names."""

from __future__ import annotations

import argparse
from concurrent.futures import Future
from typing import TYPE_CHECKING

from streamer.app import retry_topics
from streamer.cli import clients
from streamer.cli.options import add_config, load_config, positive
from streamer.errors import StartupError
from streamer.settings import Config

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

NAME = "topics"
HELP = "create the topics"

# A dead letter is its record and up to 2 KB of headers: it must fit even when the record just did.
DEAD_LETTER_BYTES = 2 << 20
KEPT_AFTER_DUE = 28 * 86_400  # seconds


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="create those that are missing")
    add_config(create)
    create.add_argument("--partitions", type=positive, default=4, metavar="N", help="of each topic (4)")
    create.add_argument(
        "--replication", type=positive, default=-1, metavar="N", help="replicas (the broker's default)"
    )
    create.add_argument("--dry-run", action="store_true", help="let the broker check it, create nothing")


def run(args: argparse.Namespace) -> int:
    """Create what is missing. Raises StartupError when the broker is away or refuses."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewTopic

    config = load_config(args)
    admin = clients.admin(config)
    existing = clients.describe_cluster(admin, config).topics
    missing = []
    for name, settings in wanted(config).items():
        if name in existing:
            print(f"{name}: exists, {len(existing[name].partitions)} partitions")
        else:
            missing.append(NewTopic(name, args.partitions, args.replication, config=settings))
    refused = []
    done = "would be created" if args.dry_run else "created"
    for name, future in _create(admin, missing, dry_run=args.dry_run).items():
        try:
            future.result()
            print(f"{name}: {done}, {args.partitions} partitions")
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # somebody was faster
                print(f"{name}: exists")
            else:
                refused.append(f"{name}: {error.args[0].str()}")
    if refused:
        raise StartupError("the broker refused to create " + "; ".join(refused))
    return 0


def _create(admin: AdminClient, topics: list[NewTopic], *, dry_run: bool) -> dict[str, Future[None]]:
    if not topics:
        return {}
    futures: dict[str, Future[None]] = admin.create_topics(
        topics,
        operation_timeout=clients.TIMEOUT,
        request_timeout=2 * clients.TIMEOUT,
        validate_only=dry_run,
    )
    return futures


def wanted(config: Config) -> dict[str, dict[str, str]]:
    """The topics and their settings: `delete` in words, for a broker's default may be to compact.

    Dead letters keep the time of their record, by which an old one would be deleted at once: they stay until
    somebody purges them. What is delayed must be there when it is due, and long after, should nobody come.
    """
    topics = config.topics
    delete = {"cleanup.policy": "delete"}
    kept = {**delete, "max.message.bytes": str(DEAD_LETTER_BYTES)}
    delayed = {
        name: {**kept, "retention.ms": str(1000 * (delay + KEPT_AFTER_DUE))}
        for name, delay in zip(retry_topics(config), config.retry.delays, strict=False)
    }
    return {
        topics.input: delete,
        topics.output: delete,
        topics.dead_letters: {**kept, "retention.ms": "-1"},
        **delayed,
    }
