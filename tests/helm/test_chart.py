"""The chart's own rules: what it takes and refuses, and that its papers agree with it and the program."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streamer import __version__
from streamer.redaction import SECRET
from streamer.settings import Config
from tests.helm import values_schema
from tests.helm.render import CHART, HERE, VALUES, Refused, manifests, one, pods, render
from tests.helm.tools import helm, tools

SETS = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
CPU = HERE / "values" / "cpu.yaml"


@SETS
def test_lint(values: Path) -> None:
    done = subprocess.run(
        [helm(), "lint", "--strict", str(CHART), "--values", str(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_the_sets_that_are_promised() -> None:
    assert {path.stem for path in VALUES} >= {
        "cpu",
        "gpu",
        "exactly-once",
        "keda",
        "tls-sasl",
        "external-secret",
    }
    assert len(VALUES) >= 8


def test_the_version_is_the_programs() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"] == __version__


# -- values.schema.json ------------------------------------------------------------------------------------


def test_it_is_a_schema_and_the_shipped_configuration_keeps_it() -> None:
    schema = json.loads(values_schema.FILE.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    shipped = yaml.safe_load((CHART.parents[1] / "config" / "streamer.yaml").read_text("utf-8"))
    shipped["ops"] = {"host": "0.0.0.0", "port": 8080}
    jsonschema.validate({"config": shipped, "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}, schema)


def test_the_drain_is_the_programs() -> None:
    """The grace period is made of it, so the values say it; they must not say another."""
    assert yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["config"]["limits"]["drain_s"] == (
        Config().limits.drain_s
    )


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("config.batching.max_txts=1", "additional properties 'max_txts' not allowed"),
        ("config.batching.max_texts=0", "minimum"),
        ("config.deduplication.ttl=7x", "config/deduplication/ttl"),
        ("config.ops.host=127.0.0.1", "config/ops/host"),
        ("config.ops.port=null", "config/ops"),
        ("config.limits.drain_s=null", "missing property 'drain_s'"),
        ("config.redis.url=redis://:hunter2@redis", "config/redis/url"),
        ("config.redis.url=redis://redis?password=hunter2", "config/redis/url"),
        ("secrets.env[0].value=hunter2", "additional properties 'value' not allowed"),
        ("resources.limits.memory=null", "missing property 'memory'"),
        ("kind=DaemonSet", "kind"),
        ("config.delivery=exactly_once,kind=Deployment", "exactly_once takes kind: StatefulSet"),
        ("config.delivery=exactly_once,replicas=2,config.kafka.transactional_id=one", "one for all workers"),
        ("replicas=2,config.kafka.consumer.group\\.instance\\.id=one", "one for all workers"),
        ("autoscaling.by=keda,autoscaling.maxReplicas=5", "maxReplicas is 5 and topics.partitions 4"),
        ("autoscaling.by=keda,autoscaling.minReplicas=5", "minReplicas is more than"),
        ("autoscaling.by=hpa,autoscaling.minReplicas=0", "takes autoscaling.by: keda"),
        ("autoscaling.by=keda,config.topics.input=${env:TOPIC}", "it cannot follow references"),
        ("model.from=claim,config.model.name=/models/x", "takes model.existingClaim"),
        ("model.from=claim,model.existingClaim=c", "set config.model.name"),
        ("model.from=init,config.model.name=/models/x", "takes model.init.image"),
    ],
)
def test_refused(setting: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        render(arguments=("--set", setting))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
    ],
)
@pytest.mark.parametrize("place", ["properties", "consumer", "producer"])
def test_a_secret_is_a_reference(tmp_path: Path, name: str, place: str) -> None:
    assert SECRET.search(name)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"config": {"kafka": {place: {name: "hunter2"}}}}))
    with pytest.raises(Refused, match=re.escape(name)):
        render(values)
    values.write_text(yaml.safe_dump({"config": {"kafka": {place: {name: "${env:SECRET}"}}}}))
    assert "${env:SECRET}" in one("ConfigMap", manifests(values))["data"]["streamer.yaml"]


# -- what follows from values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drain", "margin", "seconds"), [("20", "15", 35), ("0.5", "15", 16), ("45.5", "20", 66)]
)
def test_the_grace_period_is_the_drain_and_a_margin(drain: str, margin: str, seconds: int) -> None:
    settings = f"config.limits.drain_s={drain},terminationMarginSeconds={margin}"
    found = manifests(arguments=("--set-json", settings))
    assert one("Deployment", found)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_a_changed_configuration_rolls_the_pods_and_nothing_else_does() -> None:
    def annotation(*settings: str) -> str:
        found = one("Deployment", manifests(arguments=settings))
        checksum: str = found["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return checksum

    assert annotation() == annotation("--set", "replicas=3")
    assert annotation() != annotation("--set", "config.batching.max_texts=32")


def test_retries_run_beside_the_workers_where_they_are_delayed() -> None:
    names = {each["metadata"]["name"] for each in manifests() if each["kind"] == "Deployment"}
    assert names == {"scores-streamer"}
    delayed = manifests(arguments=("--set", "config.retry.policy=delay"))
    (pod,) = [pod for pod in pods(delayed) if pod["of"] == "Deployment scores-streamer-retry"]
    assert pod["containers"][0]["args"][0] == "retry"
    monitored = manifests(arguments=("--set", "config.retry.policy=delay,monitoring.podMonitor=true"))
    names = {each["metadata"]["name"] for each in monitored if each["kind"] == "PodMonitor"}
    assert names == {"scores-streamer", "scores-streamer-retry"}, "jobs of their own"


def test_a_replay_as_a_job_of_its_own() -> None:
    """`helm template -s`, as the README has it."""
    settings = ("-s", "templates/replay.yaml", "--set", "replay.kind=Job", "--set", "replay.args={--max,5}")
    (job,) = manifests(arguments=settings)
    (pod,) = pods([job])
    assert job["kind"] == "Job"
    assert pod["containers"][0]["args"] == [
        "dlq", "replay", "--config", "/etc/streamer/streamer.yaml", "--max", "5"
    ]  # fmt: skip


# -- README.md ---------------------------------------------------------------------------------------------


def test_the_readme_is_what_helm_docs_makes_of_the_values() -> None:
    made = subprocess.run(
        [str(tools() / "helm-docs"), "--chart-search-root", str(CHART), "--dry-run", "--log-level", "error"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    readme = (CHART / "README.md").read_text("utf-8")
    assert readme.strip() == made.strip(), (
        f"helm-docs --chart-search-root helm/streamer, with {tools()}/helm-docs"
    )


def examples() -> list[dict[str, Any]]:
    """The values that the README shows."""
    readme = (CHART / "README.md").read_text("utf-8")
    blocks = re.findall(r"(?:^    .*\n)+", readme, re.MULTILINE)
    found = [yaml.safe_load(block) for block in blocks if re.match(r" {4}\w+:", block)]
    return [each for each in found if isinstance(each, dict)]


@pytest.mark.parametrize("number", range(3))
def test_its_examples_render(tmp_path: Path, number: int) -> None:
    assert len(examples()) == 3
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(examples()[number]))
    assert render(values) != render(CPU)
