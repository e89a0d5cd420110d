"""librdkafka's settings: what streamer passes on, and what it refuses because it would break a guarantee."""

from __future__ import annotations

from collections.abc import Callable, Mapping

TRUE = frozenset({"true", "t", "1", "yes", "on"})
FALSE = frozenset({"false", "f", "0", "no", "off"})


def _always(value: str) -> bool:
    return True


def _true(value: str) -> bool:
    return value in TRUE


def _not_true(value: str) -> bool:
    return value not in TRUE


def _not_all(value: str) -> bool:
    return value not in {"all", "-1"}


def _is(refused: str) -> Callable[[str], bool]:
    return lambda value: value == refused


_AUTO_COMMIT = "offsets would be committed before their results are published: a crash would lose records"
_ACKS = "a result could vanish with one broker after the offset of its record was committed"
_TIMEOUT = (
    "a result that is given up leaves a gap in the order; streamer waits for the broker and commits nothing"
)
_EOF = "streamer sets it: this is how it learns that a partition is read to its end"
_TRANSACTION = "set delivery: exactly_once, and kafka.transactional_id if its default does not fit"
_CALLBACK = "it takes a function, not text, and streamer sets those it needs"

# Property -> (which values are refused, in words; the test for them; why). Aliases are entries too.
REFUSED: dict[str, tuple[str, Callable[[str], bool], str]] = {
    "bootstrap.servers": ("any", _always, "set kafka.bootstrap_servers instead"),
    "metadata.broker.list": ("any", _always, "set kafka.bootstrap_servers instead"),
    "group.id": ("any", _always, "set kafka.group_id instead"),
    "enable.auto.commit": ("true", _true, _AUTO_COMMIT),
    "auto.commit.enable": ("true", _true, _AUTO_COMMIT),
    "enable.auto.offset.store": ("true", _true, _AUTO_COMMIT),
    "offset.store.method": (
        "file",
        _is("file"),
        "the next owner of a partition looks for its offset in Kafka, not in a file",
    ),
    "enable.partition.eof": ("false", lambda value: value in FALSE, _EOF),
    "isolation.level": (
        "read_uncommitted",
        _is("read_uncommitted"),
        "records of aborted transactions would be scored: for their producer they never were",
    ),
    "enable.idempotence": ("false", _not_true, "a retry could write results twice and out of order"),
    "acks": ("other than all", _not_all, _ACKS),
    "request.required.acks": ("other than all", _not_all, _ACKS),
    "message.timeout.ms": ("any", _always, _TIMEOUT),
    "delivery.timeout.ms": ("any", _always, _TIMEOUT),
    "retries": ("any", _always, _TIMEOUT),
    "message.send.max.retries": ("any", _always, _TIMEOUT),
    "queuing.strategy": ("lifo", _is("lifo"), "results would leave in another order than their records came"),
    "delivery.report.only.error": (
        "true",
        _true,
        "without word of what was written nothing could ever be committed",
    ),
    "transactional.id": ("any", _always, _TRANSACTION),
    "transaction.timeout.ms": (
        "less than 5000",
        lambda value: not value.isdecimal() or int(value) < 5000,
        "a short pause of the worker or the broker would abort every transaction",
    ),
    "default.topic.config": ("any", _always, "set the properties in it directly"),
    "on_commit": ("any", _always, _CALLBACK),
    "on_delivery": ("any", _always, _CALLBACK),
    "*_cb": ("any", _always, _CALLBACK),
}


def refusal(name: str, value: str) -> str | None:
    """Why this librdkafka property is refused; None when it is not."""
    rule = REFUSED.get("*_cb" if name.endswith("_cb") else name)
    if rule is None:
        return None
    _, refused, reason = rule
    return reason if refused(value.strip().lower()) else None


def as_text(value: object) -> str | None:
    """A scalar of the file as librdkafka wants it; None for what is no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def refusals(properties: Mapping[str, str]) -> dict[str, str]:
    """The refused ones of these properties, each with its reason."""
    return {
        name: reason for name, value in properties.items() if (reason := refusal(name, value)) is not None
    }
