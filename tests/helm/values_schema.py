"""The part of the chart's values.schema.json that is streamer's configuration, from `streamer.settings`.

    python -m tests.helm.values_schema      writes it into helm/streamer/values.schema.json

The rest of that file is written by hand. A secret has no place in a ConfigMap: what may be one is taken as a
reference alone.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from streamer.keys import durations
from streamer.settings import Config
from tests.helm.render import CHART

FILE = CHART / "values.schema.json"
Schema = dict[str, Any]

REFERENCE: Schema = {
    "description": "a secret or a variable of the pod",
    "type": "string",
    "pattern": r"\$\{(env|file):[^}]+\}",
}
REFER: Schema = {"$ref": "#/$defs/reference"}
DURATION: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*[smhdw]$"}
# As `streamer.redaction.SECRET`, for an engine without look-ahead: Helm's.
SECRET = r"password|passphrase|secret|credential|\.pem$|oauthbearer\.config$"
PROPERTIES: Schema = {
    "type": "object",
    "patternProperties": {SECRET: REFER},
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
# The password is a reference, or else the whole address.
REDIS: Schema = {
    "type": "string",
    "pattern": r"^(redis|rediss|unix)://([^:@]*:\$\{(env|file):[^}]+\}@)?[^@?]*$|^\$\{(env|file):[^}]+\}$",
}
# The templates work with these, so that they cannot be references, and probes have to reach the ops port.
OWN: dict[str, Schema] = {
    "delivery": {},
    "limits.drain_s": {},
    "retry.policy": {},
    "ops.host": {"not": {"enum": ["127.0.0.1", "::1", "localhost"]}},
    "ops.port": {"type": "integer", "minimum": 1, "maximum": 65_535},
}
REQUIRED = {
    "": ["kafka", "limits", "ops"],
    "kafka": ["bootstrap_servers"],
    "limits": ["drain_s"],
    "ops": ["port"],
}


def config_schema() -> Schema:
    """What `config` may hold: every key of streamer with its bounds, and nothing else."""
    found = msgspec.json.schema(Config)["$defs"]
    timed = set(durations())

    def section(name: str, prefix: str) -> Schema:
        keys = {}
        for key, schema in found[name]["properties"].items():
            path = f"{prefix}{key}"
            reference = schema.get("$ref", "").removeprefix("#/$defs/")
            keys[key] = section(reference, f"{path}.") if reference else _leaf(path, schema, path in timed)
        required = REQUIRED.get(prefix.removesuffix("."))
        return {
            "type": "object",
            "description": found[name]["description"],
            "properties": keys,
            "additionalProperties": False,
        } | ({"required": required} if required else {})

    return section("Config", "")


def _leaf(path: str, schema: Schema, duration: bool) -> Schema:
    about = {"description": schema.pop("description")}
    schema.pop("default", None)
    if path in OWN:
        return about | schema | OWN[path] if "type" not in OWN[path] else about | OWN[path]
    if path == "redis.url":
        return about | REDIS
    if schema.get("type") == "object":
        return about | PROPERTIES
    if schema.keys() <= {"type", "minLength"} and schema["type"] == "string":
        return about | schema
    options = schema.pop("anyOf", [schema])
    return about | {"anyOf": [*map(_or_duration, options), REFER] if duration else [*options, REFER]}


def _or_duration(schema: Schema) -> Schema:
    if schema["type"] == "array":
        return schema | {"items": _or_duration(schema["items"])}
    return {"anyOf": [schema, DURATION]}


def complete(schema: Schema) -> str:
    """The text of values.schema.json: `schema` with the parts that are generated."""
    parts = {"properties": schema["properties"] | {"config": config_schema()}}
    parts["$defs"] = schema.get("$defs", {}) | {"reference": REFERENCE}
    return _written(schema | parts, "") + "\n"


def _written(value: Any, margin: str) -> str:
    """JSON to be read: what fits into a line is one."""
    line = json.dumps(value)
    if len(margin) + len(line) <= 110 or not isinstance(value, dict | list):
        return line
    inner = margin + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _written(each, inner) for each in value) + f"\n{margin}]"
    lines = [f"{inner}{json.dumps(key)}: {_written(each, inner)}" for key, each in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{margin}}}"


if __name__ == "__main__":
    FILE.write_text(complete(json.loads(FILE.read_text("utf-8"))), "utf-8")
