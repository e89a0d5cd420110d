"""Grafana's dashboards: `python -m monitoring.dashboards` writes monitoring/grafana/dashboards/*.json.

The JSON is what Grafana's provisioning and its sidecar load; a test holds it to what is written here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monitoring.panels import (
    JOB,
    RATE,
    WORKER,
    Panel,
    Row,
    gauge,
    laid_out,
    quantiles,
    rate,
    stat,
    variables,
)

FOLDER = Path(__file__).resolve().parent / "grafana" / "dashboards"

OVERVIEW = [
    Row(
        "At a glance",
        [
            stat("Results a second", f"sum(rate(streamer_results_total{{{JOB}}}[{RATE}]))", "cps"),
            stat("Lag", f"sum(streamer_lag_records{{{JOB}}})"),
            stat("Dead letters", f"job:streamer_dead_letters:ratio_rate5m{{{JOB}}}", "percentunit"),
            stat("Workers ready", f"sum(streamer_ready{{{JOB}}})"),
            stat("Partitions of unknown lag", f"sum(streamer_lag_unknown_partitions{{{JOB}}})"),
            stat("Alerts", 'count(ALERTS{alertname=~"Streamer.*", alertstate="firing"}) or vector(0)'),
        ],
    ),
    Row(
        "Records",
        [
            Panel(
                "In and out",
                {
                    rate("streamer_records_total", "job"): "read",
                    rate("streamer_results_total", "job"): "results",
                    rate("streamer_dead_letters_total", "job"): "dead letters",
                    rate("streamer_skipped_total", "job"): "skipped",
                    rate("streamer_delayed_total", "job"): "delayed",
                },
                "cps",
            ),
            Panel(
                "Lag by partition",
                {f"sum by (topic, partition) (streamer_lag_records{{{JOB}}})": "{{topic}}[{{partition}}]"},
                about="A partition whose lag is not known is absent.",
                stacked=True,
            ),
            Panel("From a record's timestamp to its result", quantiles("streamer_end_to_end_seconds"), "s"),
            Panel(
                "Skipped, by reason",
                {rate("streamer_skipped_total", "reason"): "{{reason}}"},
                "cps",
                about="same_window, duplicate, redelivered: what deduplication kept out of the results.",
            ),
        ],
    ),
    Row(
        "Workers",
        [
            Panel("Results by worker", {rate("streamer_results_total", "instance"): "{{instance}}"}, "cps"),
            Panel(
                "Device busy",
                {f"instance:streamer_device_busy:ratio_rate5m{{{JOB}}}": "{{instance}}"},
                "percentunit",
                about="The time in which the device had a batch. Low under lag: something else is slow.",
            ),
            Panel(
                "Model FLOPs utilisation",
                {f"instance:streamer_mfu:ratio_rate5m{{{JOB}}}": "{{instance}}"},
                "percentunit",
                about="What the texts needed of what the data sheet promises; where both are known.",
            ),
            Panel(
                "Padding",
                {f"instance:streamer_padding:ratio_rate5m{{{JOB}}}": "{{instance}}"},
                "percentunit",
            ),
            Panel(
                "Restarts in 15 minutes",
                {
                    f"changes(process_start_time_seconds{{{JOB}}}[15m]) and streamer_healthy": "{{instance}}",
                },
            ),
            Panel("Rebalances", {rate("streamer_rebalances_total", "event"): "{{event}}"}, "cps"),
        ],
    ),
    Row(
        "Around it",
        [
            Panel(
                "Redis answers, brokers connected",
                {
                    f"min by (instance) (streamer_redis_up{{{JOB}}})": "Redis {{instance}}",
                    f"min by (instance) (streamer_kafka_brokers_up{{{JOB}}})": "brokers {{instance}}",
                },
            ),
            Panel(
                "Errors of Kafka and Redis",
                {
                    rate("streamer_kafka_errors_total", "client, error"): "{{client}} {{error}}",
                    rate("streamer_redis_errors_total", "operation"): "Redis {{operation}}",
                },
                "cps",
            ),
        ],
    ),
]

ONE_WORKER = [
    Row(
        "At a glance",
        [
            stat("Healthy", f"min(streamer_healthy{{{WORKER}}})"),
            stat("Ready", f"min(streamer_ready{{{WORKER}}})"),
            stat("Last step", f"max(streamer_step_age_seconds{{{WORKER}}})", "s"),
            stat("Last batch", f"max(streamer_last_batch_age_seconds{{{WORKER}}})", "s"),
            stat("Oldest unfinished", f"max(streamer_oldest_unfinished_seconds{{{WORKER}}})", "s"),
            stat("Partitions", f"sum(streamer_assigned_partitions{{{WORKER}}})"),
        ],
    ),
    Row(
        "What it is",
        [
            Panel("Model", {f"streamer_model_info{{{WORKER}}}": ""}, kind="table"),
            Panel("Worker", {f"streamer_worker_info{{{WORKER}}}": ""}, kind="table"),
        ],
    ),
    Row(
        "The line",
        [
            Panel(
                "What waits",
                {f"sum by (queue) (streamer_queue_depth{{{WORKER}}})": "{{queue}}"},
                about="Records (window, claims), batches (planned, device), releases (publishing).",
            ),
            Panel("In flight", gauge("streamer_in_flight_bytes"), "bytes"),
            Panel("Records in flight", gauge("streamer_in_flight_records")),
            Panel("Reading paused", gauge("streamer_paused")),
            Panel("Records of a window", quantiles("streamer_window_records", "instance")),
            Panel("Age of a window", quantiles("streamer_window_wait_seconds", "instance"), "s"),
            Panel("Tried again", {rate("streamer_retries_total", "stage", WORKER): "{{stage}}"}, "cps"),
            Panel("Commits", quantiles("streamer_commit_seconds", "instance"), "s"),
            Panel("Transactions", quantiles("streamer_transaction_seconds", "instance"), "s"),
            Panel(
                "Transactions by outcome",
                {rate("streamer_transactions_total", "outcome", WORKER): "{{outcome}}"},
                "cps",
            ),
        ],
    ),
    Row(
        "Batches",
        [
            Panel("Service time", quantiles("streamer_batch_seconds", "instance"), "s"),
            Panel("Texts of a batch", quantiles("streamer_batch_texts", "instance")),
            Panel(
                "Tokens of a batch, and how many it may have",
                {
                    **quantiles("streamer_batch_tokens", "instance"),
                    **{query: "budget" for query in gauge("streamer_budget_tokens")},
                },
            ),
            Panel(
                "Tokens a second",
                {
                    rate("streamer_tokens_total", "instance", WORKER): "of texts",
                    rate("streamer_computed_tokens_total", "instance", WORKER): "computed on",
                },
                "cps",
            ),
            Panel(
                "Failed batches", {rate("streamer_batch_failures_total", "error", WORKER): "{{error}}"}, "cps"
            ),
            Panel("Padded for want of a packed attention", gauge("streamer_attention_fallback")),
        ],
    ),
    Row(
        "The device and the process",
        [
            Panel("Device utilisation", gauge("streamer_device_utilisation_ratio"), "percentunit"),
            Panel(
                "Device memory",
                {
                    f"streamer_device_memory_used_bytes{{{WORKER}}}": "used",
                    f"streamer_device_memory_total_bytes{{{WORKER}}}": "there",
                },
                "bytes",
            ),
            Panel("Power", gauge("streamer_device_power_watts"), "watt"),
            Panel("Temperature", gauge("streamer_device_temperature_celsius"), "celsius"),
            Panel("Processor cores", {rate("process_cpu_seconds_total", "instance", WORKER): "{{instance}}"}),
            Panel("Memory", gauge("process_resident_memory_bytes"), "bytes"),
        ],
    ),
]

DEAD_LETTERS = [
    Row(
        "Dead letters",
        [
            stat("In the last hour", f"sum(increase(streamer_dead_letters_total{{{JOB}}}[1h]))"),
            stat("Share now", f"job:streamer_dead_letters:ratio_rate5m{{{JOB}}}", "percentunit"),
            stat("Records delayed", f"sum(increase(streamer_delayed_total{{{JOB}}}[1h]))"),
        ],
    ),
    Row(
        "Why",
        [
            Panel(
                "By reason",
                {rate("streamer_dead_letters_total", "reason"): "{{reason}}"},
                "cps",
                stacked=True,
            ),
            Panel("By worker", {rate("streamer_dead_letters_total", "instance"): "{{instance}}"}, "cps"),
            Panel(
                "The last hour, by reason",
                {f"sum by (reason) (increase(streamer_dead_letters_total{{{JOB}}}[1h]))": "{{reason}}"},
                kind="bargauge",
            ),
            Panel(
                "Share of what left the line",
                {f"job:streamer_dead_letters:ratio_rate5m{{{JOB}}}": "{{job}}"},
                "percentunit",
            ),
            Panel("Failed batches", {rate("streamer_batch_failures_total", "error"): "{{error}}"}, "cps"),
            Panel("Delayed", {rate("streamer_delayed_total", "instance"): "{{instance}}"}, "cps"),
        ],
    ),
]

DASHBOARDS = {
    "overview": ("Streamer: overview", OVERVIEW),
    "worker": ("Streamer: a worker", ONE_WORKER),
    "dead-letters": ("Streamer: dead letters", DEAD_LETTERS),
}


def dashboard(name: str) -> dict[str, Any]:
    """What Grafana loads."""
    title, rows = DASHBOARDS[name]
    return {
        "uid": f"streamer-{name}",
        "title": title,
        "tags": ["streamer"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables(workers=rows is ONE_WORKER)},
        "links": [{"type": "dashboards", "title": "streamer", "tags": ["streamer"], "keepTime": True}],
        "panels": laid_out(rows),
    }


def written(name: str) -> str:
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(written(each), "utf-8")
