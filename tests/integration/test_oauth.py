"""Streamer against a Kafka that asks for a token, as docs/security.md says it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.conftest import MakeTopic
from tests.integration.line import Line
from tests.integration.test_security import PASSWORD, example, rights
from tests.servers import KafkaServer, allow
from tests.servers.oauth import Issuer, token_endpoint

SECRET = "STREAMER_OAUTH_SECRET"


@pytest.fixture
def line(
    guarded_kafka: KafkaServer,
    redis_url: str,
    make_topic: MakeTopic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Line, list[int]]]:
    """A line with the page's example, and what its token endpoint answered."""
    doors = guarded_kafka.doors
    made = Line(tmp_path, guarded_kafka, redis_url, partial(make_topic, server=guarded_kafka), 2)
    user, group = f"streamer-{made.input}", made.config["kafka"]["group_id"]
    names = {
        "texts.in": made.input,
        "sentiment.out": made.output,
        "texts.dlq": made.dead_letters,
        "texts.retry.": f"retry-{made.input}.",
        "streamer": group,
        "streamer.": f"{group}.",
    }
    for operation, kind, name, prefixed in rights("streamer"):
        allow(guarded_kafka.bootstrap_servers, user, operation, kind, names[name], prefixed=prefixed)
    for name in ("kafka-ca", "login-ca"):
        (tmp_path / f"{name}.pem").write_bytes(doors.certificates.ca.read_bytes())
    monkeypatch.setenv(SECRET, PASSWORD)
    with token_endpoint(doors.issuer, user, PASSWORD, doors.certificates.issue("login")) as (url, answers):
        text = msgspec.json.encode(example("oauth.yaml")["kafka"]["properties"]).decode()
        properties = msgspec.json.decode(text.replace("/etc/streamer", str(tmp_path)))
        properties |= {"sasl.oauthbearer.token.endpoint.url": url, "sasl.oauthbearer.client.id": user}
        made.config["kafka"] |= {"bootstrap_servers": doors.oauth, "properties": properties}
        yield made, answers
        made.close()


def test_the_example_of_the_page_scores_texts(line: tuple[Line, list[int]]) -> None:
    ours, answers = line
    for number in range(50):
        ours.publish(b'{"id": "%d", "text": "good"}' % number, number % 2)
    ours.flush()
    worker = ours.start("--exit-when-idle", "1")
    assert worker.wait() == 0, worker.log.read_text("utf-8")
    said = worker.log.read_text("utf-8")
    assert PASSWORD not in said and "uthorization" not in said, said
    assert len(ours.reader(ours.output).all()) == 50
    assert answers and set(answers) == {200}


def test_a_token_of_a_stranger_is_refused(
    line: tuple[Line, list[int]], guarded_kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The endpoint gives it, the broker does not take it: its key is not among the broker's."""
    ours, answers = line
    stranger = Issuer(tmp_path)
    monkeypatch.setattr(guarded_kafka.doors.issuer, "token", stranger.token)
    worker = ours.start()
    assert worker.wait() == 3, worker.log.read_text("utf-8")
    said = worker.log.read_text("utf-8")
    assert "invalid_token" in said and "Traceback" not in said, said
    assert answers and set(answers) == {200}


def test_a_wrong_secret_is_told(line: tuple[Line, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, answers = line
    monkeypatch.setenv(SECRET, "not/it @all")
    worker = ours.start()
    assert worker.wait() == 3, worker.log.read_text("utf-8")
    said = worker.log.read_text("utf-8")
    assert "OAUTHBEARER" in said and "unknown client or secret" in said and "kafka.properties" in said, said
    assert "not/it" not in said and "Traceback" not in said, said
    assert answers and set(answers) == {401}
