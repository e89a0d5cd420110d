"""The configuration: what it takes, what it refuses, and what it says then."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from streamer import keys
from streamer.config import Config, load
from streamer.errors import (
    ConfigurationError,
    DeviceError,
    FatalError,
    StartupError,
    StreamerError,
)
from streamer.properties import REFUSED
from streamer.redaction import without_credentials
from tests.helm import values_schema

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
SHIPPED = ROOT / "config" / "streamer.yaml"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "streamer.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def refusal(path: Path | None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ or {})
    return caught.value.detail


class TestDefaults:
    def test_without_a_file_they_are_the_contract(self) -> None:
        config = load(None, {})
        assert config == Config()
        assert config.kafka.bootstrap_servers == "localhost:9092"
        assert config.deduplication.ttl == 7 * 86_400
        assert config.input.id_from == ("header", "field", "content", "coordinate")

    def test_the_shipped_file_says_every_one_of_them(self) -> None:
        assert load(SHIPPED, {}) == Config()
        written = yaml.safe_load(SHIPPED.read_text("utf-8"))
        names = {f"{s}.{key}" for s, keys_ in written.items() if isinstance(keys_, dict) for key in keys_}
        assert names | {"delivery"} == set(keys.kinds())

    @pytest.mark.parametrize("text", ["", "# nothing\n", "kafka:\n", "kafka: {properties: }"])
    def test_nothing_said_is_the_default(self, write: Any, text: str) -> None:
        assert load(write(text), {}) == Config()

    def test_it_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            load(None, {}).kafka.group_id = "other"  # type: ignore[misc]


class TestFile:
    @pytest.mark.parametrize(
        ("text", "key", "says"),
        [
            ("batching: {max_txts: 1}", "batching.max_txts", "did you mean max_texts?"),
            ("batchin: {max_texts: 1}", "batchin", "did you mean batching?"),
            ("window: {max_texts: 1}", "window.max_texts", "did you mean batching.max_texts?"),
            ("max_texts: 1", "max_texts", "did you mean batching.max_texts?"),
            ("zzz: 1", "zzz", "there are kafka, topics"),
            ("batching: {max_texts: 0}", "batching.max_texts", ">= 1, got 0"),
            ("batching: {max_texts: many}", "batching.max_texts", "expected a whole number, got text"),
            ("batching: {max_texts: }", "batching.max_texts", "got null"),
            ("ops: {port: http}", "ops.port", "expected a whole number or null, got text"),
            ("window: {linger_ms: -1}", "window.linger_ms", ">= 0.0, got -1"),
            ("limits: {hang_s: .nan}", "limits.hang_s", "> 0.0"),
            ("limits: {hang_s: .inf}", "limits.hang_s", "<= 86400.0"),
            ("deduplication: {enabled: maybe}", "deduplication.enabled", "expected true or false"),
            ("kafka: 9092", "kafka", "expected a mapping"),
            ("kafka: {properties: [a]}", "kafka.properties", "got a list"),
            ("kafka: {properties: {ssl: {ca: x}}}", "kafka.properties.ssl", "with dots"),
            ("kafka: {bootstrap_servers: [a, b]}", "kafka.bootstrap_servers", "expected text, got a list"),
            ("model: {precision: bf61}", "model.precision", "did you mean bf16?"),
            (
                "model: {quantize: int4}",
                "model.quantize",
                "expected fp8 or int8 or none, got int4; did you mean int8?",
            ),
            ("log: {level: INFO}", "log.level", "did you mean info?"),
            ("input: {id_from: []}", "input.id_from", "length >= 1"),
            ("input: {id_from: [hedr]}", "input.id_from", "expected content or coordinate"),
            ("topics: {input: two words}", "topics.input", "a topic name"),
            ("topics: {output: texts.in}", "topics.output", "is the topic of topics.input too"),
            ("redis: {cluster: true, sentinel: m}", "redis.cluster", "set one"),
            ("redis: {url: 'redis://a:1,b:2/0'}", "redis.url", "names 2 hosts: set redis.cluster"),
            ("redis: {url: 'unix:///s', cluster: true}", "redis.url", "is a socket of this machine"),
            ("redis: {sentinel_password: x}", "redis.sentinel_password", "is for redis.sentinel"),
            ("redis: {ca: ca.pem}", "redis.ca", "let redis.url begin with rediss://"),
            ("redis: {url: 'rediss://h', key: k.pem}", "redis.certificate", "goes together with redis.key"),
            ("retry: {delays: [1m, 60s]}", "retry.delays", "each must be longer than the one before it"),
            ("topics: {output: texts.retry.1m}", "topics.retry", "texts.retry.1m, which topics has for"),
            ("window: {max_in_flight_bytes: 10}", "window.max_in_flight_bytes", "less than window.max_bytes"),
            ("delivery: at_most_once", "delivery", "expected at_least_once or exactly_once"),
            ("opps: {port: 9100}", "opps", "did you mean ops?"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_path(self, write: Any, text: str, key: str, says: str) -> None:
        path = write(text)
        detail = refusal(path)
        assert detail.startswith(f"{path}: {key}: ")
        assert says in detail

    def test_all_unknown_keys_are_told_at_once(self, write: Any) -> None:
        assert refusal(write("window: {a: 1, b: 2}\nc: 3")).count(": unknown ") == 3

    def test_a_syntax_error_names_file_and_line_and_quotes_nothing(self, write: Any) -> None:
        path = write("kafka:\n  properties: {sasl.password: hunter2\n  x")
        detail = refusal(path)
        assert detail.startswith(f"{path}, line 3, column ")
        assert "hunter2" not in detail

    def test_a_key_given_twice_is_an_error(self, write: Any) -> None:
        assert "line 3, column 1: the key window is there twice" in refusal(
            write("window: {linger_ms: 1}\nlog: {}\nwindow: {}\n")
        )

    @pytest.mark.parametrize("text", ["- 1", "just text", "7"])
    def test_a_file_without_sections(self, write: Any, text: str) -> None:
        assert "expected sections with keys" in refusal(write(text))

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "streamer.yaml"
        path.write_bytes(b"kafka: \xff\xff")
        assert "not YAML" in refusal(path)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "no.yaml").endswith(
            "No such file or directory; name the file with --config"
        )

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("90", 90),
            ("'90'", 90),
            ("30s", 30),
            ("15m", 900),
            ("12h", 43_200),
            ("7d", 604_800),
            ("1.5h", 5400),
        ],
    )
    def test_durations(self, write: Any, written: str, seconds: int) -> None:
        assert load(write(f"deduplication: {{ttl: {written}}}"), {}).deduplication.ttl == seconds

    @pytest.mark.parametrize("written", ["7x", "s", "-1s", "0", "0s", "1.5s", "7 days", "400d"])
    def test_what_is_no_duration(self, write: Any, written: str) -> None:
        assert "deduplication.ttl" in refusal(write(f"deduplication: {{ttl: {written}}}"))

    def test_a_list_of_durations(self, write: Any) -> None:
        assert load(write("retry: {delays: [5, 90s, 1h]}"), {}).retry.delays == (5, 90, 3600)
        variable = {"STREAMER__RETRY__DELAYS": "[1m, 2h]", "STREAMER__RETRY__DEADLINE": "15m"}
        assert load(None, variable).retry.delays == (60, 7200)
        assert load(None, variable).retry.deadline == 900
        for written in ("[]", "[1x]", "[0]", "[1.5s]", "1m"):
            assert "retry.delays" in refusal(write(f"retry: {{delays: {written}}}"))


class TestProperties:
    def test_scalars_become_what_librdkafka_reads(self, write: Any) -> None:
        text = "kafka: {properties: {a: true, b: 5, c: 1.5, d: text}, consumer: {enable.auto.commit: false}}"
        kafka = load(write(text), {}).kafka
        assert kafka.properties == {"a": "true", "b": "5", "c": "1.5", "d": "text"}
        assert kafka.consumer == {"enable.auto.commit": "false"}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("enable.auto.commit", "true"),
            ("auto.commit.enable", "True"),
            ("enable.auto.offset.store", "1"),
            ("group.id", "mine"),
            ("bootstrap.servers", "a:1"),
            ("metadata.broker.list", "a:1"),
            ("enable.idempotence", "false"),
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("message.timeout.ms", "1000"),
            ("delivery.timeout.ms", "1000"),
            ("retries", "3"),
            ("message.send.max.retries", "3"),
            ("transactional.id", "t"),
            ("transaction.timeout.ms", "4999"),
            ("transaction.timeout.ms", "20 s"),
            ("enable.partition.eof", "false"),
            ("isolation.level", "read_uncommitted"),
            ("queuing.strategy", "lifo"),
            ("delivery.report.only.error", "true"),
            ("offset.store.method", "file"),
            ("default.topic.config", "x"),
            ("on_commit", "f"),
            ("on_delivery", "f"),
            ("stats_cb", "f"),
        ],
    )
    @pytest.mark.parametrize("place", ["properties", "consumer", "producer"])
    def test_those_that_break_a_guarantee_are_refused_everywhere(
        self, write: Any, place: str, name: str, value: str
    ) -> None:
        detail = refusal(write(f"kafka: {{{place}: {{{name}: '{value}'}}}}"))
        assert f"kafka.{place}.{name}: refused: " in detail

    @pytest.mark.parametrize(
        ("name", "value"),
        [("acks", "all"), ("acks", -1), ("enable.idempotence", True), ("isolation.level", "read_committed")],
    )
    def test_saying_what_holds_anyway_is_no_error(self, write: Any, name: str, value: object) -> None:
        assert load(write(yaml.safe_dump({"kafka": {"producer": {name: value}}})), {}).kafka.producer

    def test_the_table_has_no_rule_that_refuses_nothing(self) -> None:
        values = ["true", "false", "1", "file", "lifo", "read_uncommitted"]
        assert [name for name, (_, test, _) in REFUSED.items() if not any(map(test, values))] == []


class TestEnvironment:
    @pytest.mark.parametrize(
        ("variable", "value", "section", "key", "expected"),
        [
            ("STREAMER__KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2", "kafka", "bootstrap_servers", "a:1,b:2"),
            ("streamer__kafka__group_id", "123", "kafka", "group_id", "123"),
            ("STREAMER__MODEL__NAME", "off", "model", "name", "off"),
            ("STREAMER__MODEL__REVISION", "", "model", "revision", None),
            ("STREAMER__MODEL__REVISION", "null", "model", "revision", None),
            ("STREAMER__MODEL__MAX_LENGTH", "128", "model", "max_length", 128),
            ("STREAMER__BATCHING__MAX_TEXTS", "32", "batching", "max_texts", 32),
            ("STREAMER__DEDUPLICATION__ENABLED", "false", "deduplication", "enabled", False),
            ("STREAMER__DEDUPLICATION__TTL", "1d", "deduplication", "ttl", 86_400),
            ("STREAMER__WINDOW__LINGER_MS", "0.5", "window", "linger_ms", 0.5),
            ("STREAMER__INPUT__ID_FROM", "[field, content]", "input", "id_from", ("field", "content")),
            ("STREAMER__KAFKA__PROPERTIES", "{a.b: 1}", "kafka", "properties", {"a.b": "1"}),
        ],
    )
    def test_it_overrides(self, variable: str, value: str, section: str, key: str, expected: object) -> None:
        assert getattr(getattr(load(None, {variable: value}), section), key) == expected

    def test_a_key_without_a_section(self) -> None:
        assert "STREAMER__DELIVERY" in refusal(None, {"STREAMER__DELIVERY": "at_most_once"})

    def test_over_the_file_and_beside_it(self, write: Any) -> None:
        path = write(
            "kafka: {group_id: file, properties: {security.protocol: PLAINTEXT, a.b: c}}\nwindow: \n"
        )
        environ = {
            "STREAMER__KAFKA__PROPERTIES__SECURITY_PROTOCOL": "SSL",
            "STREAMER__WINDOW__MAX_RECORDS": "7",
            "STREAMER_TEST_BOOTSTRAP_SERVERS": "not ours: one underscore",
        }
        config = load(path, environ)
        assert config.kafka.group_id == "file"
        assert config.kafka.properties == {"security.protocol": "SSL", "a.b": "c"}
        assert config.window.max_records == 7

    @pytest.mark.parametrize(
        ("variable", "value", "says"),
        [
            ("STREAMER__BATCHING__MAX_TXTS", "1", "did you mean STREAMER__BATCHING__MAX_TEXTS?"),
            ("STREAMER__KAFKA", "{}", "kafka is a section; set a key of it, STREAMER__KAFKA__..."),
            ("STREAMER__BATCHING__MAX_TEXTS", "x", "batching.max_texts: expected a whole number, got text"),
            ("STREAMER__BATCHING__MAX_TEXTS__X", "1", "unknown key batching.max_texts.x"),
            ("STREAMER__KAFKA__CONSUMER__A__B", "1", "unknown key kafka.consumer.a.b"),
            ("STREAMER__INPUT__ID_FROM", "[field", "not a YAML value"),
            ("STREAMER__KAFKA__PRODUCER__ACKS", "1", "kafka.producer.acks: refused"),
            ("STREAMER__", "1", "unknown key"),
        ],
    )
    def test_what_is_wrong_is_named_with_the_variable(self, variable: str, value: str, says: str) -> None:
        detail = refusal(None, {variable: value})
        assert detail.startswith(f"{variable}: ")
        assert says in detail


class TestSecrets:
    def test_from_the_environment_and_from_files(self, write: Any, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("hunter2\n")
        path = write(
            "kafka: {properties: {sasl.username: '${env:WHO}', sasl.password: '${file:%s}'}}\n"
            "redis: {url: 'rediss://u:${env:PW}@host/0'}\nbatching: {max_texts: '${env:N}'}"
            % (tmp_path / "password")
        )
        config = load(path, {"WHO": "me", "PW": "s3cret", "N": "5"})
        assert config.kafka.properties == {"sasl.username": "me", "sasl.password": "hunter2"}
        assert config.redis.url == "rediss://u:s3cret@host/0"
        assert config.batching.max_texts == 5

    def test_in_an_override(self) -> None:
        environ = {"STREAMER__REDIS__URL": "redis://:${env:PW}@h", "PW": "x"}
        assert load(None, environ).redis.url == "redis://:x@h"

    def test_what_a_secret_holds_is_not_expanded_again(self, write: Any) -> None:
        path = write("kafka: {group_id: '${env:A}'}")
        assert load(path, {"A": "${env:B}", "B": "no"}).kafka.group_id == "${env:B}"

    @pytest.mark.parametrize(
        ("reference", "says"),
        [
            ("${env:NOPE}", "the environment variable NOPE is not set"),
            ("${file:/nope/nope}", "the file /nope/nope cannot be read: No such file or directory"),
            ("${file:/}", "the file / cannot be read: Is a directory"),
        ],
    )
    def test_a_missing_one_names_key_and_place(self, write: Any, reference: str, says: str) -> None:
        detail = refusal(write(f"kafka: {{properties: {{sasl.password: '{reference}'}}}}"))
        assert f"kafka.properties.sasl.password: {says}" in detail

    @pytest.mark.parametrize(
        "text",
        [
            "redis: {url: '${env:SECRET}'}",
            "batching: {max_texts: '${env:SECRET}'}",
            "model: {precision: '${env:SECRET}'}",
            "topics: {input: '${env:SECRET}!'}",
            "limits: {drain_s: '${env:SECRET}'}",
            "deduplication: {ttl: '${env:SECRET}'}",
            "kafka: {producer: {acks: '${env:SECRET}'}}",
            "kafka: '${env:SECRET}'",
        ],
    )
    def test_no_error_shows_one(self, write: Any, text: str) -> None:
        assert "hunter2" not in refusal(write(text), {"SECRET": "hunter2"})

    def test_a_plain_address_with_a_password_is_not_shown_either(self, write: Any) -> None:
        assert "hunter2" not in refusal(write("redis: {url: 'me:hunter2@host:6379'}"))

    def test_nothing_that_is_printed_shows_one(self) -> None:
        config = load(
            None,
            {
                "STREAMER__REDIS__URL": "redis://me:hunter2@host:6379/0?password=hunter2",
                "STREAMER__KAFKA__PROPERTIES__SASL_PASSWORD": "hunter2",
                "STREAMER__KAFKA__CONSUMER__SSL_KEY_PEM": "hunter2",
                "STREAMER__KAFKA__PRODUCER__SASL_OAUTHBEARER_CLIENT_SECRET": "hunter2",
                "STREAMER__KAFKA__PROPERTIES__SASL_USERNAME": "visible",
                "STREAMER__KAFKA__PROPERTIES__SSL_KEY_LOCATION": "/visible/too",
            },
        )
        for shown in (
            repr(config),
            str(config),
            str(config.redacted()),
            str(config.kafka),
            str(config.redis),
        ):
            assert "hunter2" not in shown
        assert config.redacted()["redis"]["url"] == "redis://***@host:6379/0"
        assert config.redacted()["kafka"]["properties"]["sasl.username"] == "visible"
        assert config.redacted()["kafka"]["properties"]["ssl.key.location"] == "/visible/too"
        assert config.redacted()["batching"] == msgspec.to_builtins(config.batching)

    @pytest.mark.parametrize(
        "address",
        [
            "redis://u:p@ss@h/0",
            "redis://:p@ss@h",
            "redis://u:p/s?s@h",
            "redis://h?password=p@ss",
            "unix://u:p@ss@/x",
        ],
    )
    def test_odd_addresses(self, address: str) -> None:
        shown = without_credentials(address)
        assert "p@" not in shown and "ss" not in shown.partition("://")[2]


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, pathlib, streamer.config as c; c.load(pathlib.Path('config/streamer.yaml'), {});"
        "heavy = ('torch', 'transformers', 'redis', 'confluent_kafka', 'rich');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- docs/configuration.md ---------------------------------------------------------------------------------


def key_rows() -> Iterator[str]:
    """A row of the page for each key; a failing test prints the whole table, to be pasted."""
    info = inspect.type_info(Config)
    assert isinstance(info, inspect.StructType)
    defaults = msgspec.to_builtins(Config())
    for section in info.fields:
        kind = keys.bare(section.type)
        if not isinstance(kind, inspect.StructType):
            yield key_row(section.name, defaults[section.name], section.type)
            continue
        for field in kind.fields:
            yield key_row(f"{section.name}.{field.name}", defaults[section.name][field.name], field.type)


def key_row(name: str, default: object, kind: inspect.Type) -> str:
    assert isinstance(kind, inspect.Metadata) and kind.extra_json_schema
    written = msgspec.json.encode(default).decode().replace('"', "")
    return f"| `{name}` | `{written}` | {type_name(kind)} | {kind.extra_json_schema['description']} |"


def type_name(kind: inspect.Type) -> str:
    match kind := keys.bare(kind):
        case inspect.LiteralType():
            return " · ".join(str(value) for value in kind.values)
        case inspect.UnionType():
            return " or ".join(type_name(one) for one in kind.types)
        case inspect.IntType() | inspect.FloatType():
            low = f"more than {kind.gt:g}" if kind.gt is not None else f"{kind.ge:g}"
            return (
                f"{'whole ' if isinstance(kind, inspect.IntType) else ''}number, {low} to {kind.le or 0:,.0f}"
            )
        case inspect.VarTupleType():
            return f"list of {type_name(kind.item_type)}"
    names = {inspect.BoolType: "true · false", inspect.DictType: "name: value", inspect.NoneType: "null"}
    return names.get(type(kind), "text")


def refused_rows() -> Iterator[str]:
    for name, (values, _, reason) in REFUSED.items():
        yield f"| `{name}` | {values} | {reason} |"


def rows_after(header: str) -> list[str]:
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index(header) + 2
    end = next(i for i in range(start, len(lines) + 1) if i == len(lines) or not lines[i].startswith("|"))
    return lines[start:end]


def test_the_page_has_every_key() -> None:
    expected = list(key_rows())
    assert rows_after("| key | default | value | meaning |") == expected, "\n".join(expected)


def test_the_page_has_every_refused_property() -> None:
    expected = list(refused_rows())
    assert rows_after("| property | refused | because |") == expected, "\n".join(expected)


def test_the_page_has_every_exit_code() -> None:
    codes = {row.split("|")[1].strip() for row in rows_after("| code | means |")}
    raised = {
        error.exit_code
        for error in (StreamerError, ConfigurationError, StartupError, FatalError, DeviceError)
    }
    assert {str(code) for code in raised | {0, 4, 130, 141}} == codes


# -- helm/streamer/values.schema.json ----------------------------------------------------------------------


def test_the_schema_of_the_chart_is_the_settings() -> None:
    written = values_schema.FILE.read_text("utf-8")
    assert written == values_schema.complete(json.loads(written)), "python -m tests.helm.values_schema"
