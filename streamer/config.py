"""The configuration: one YAML file, over it the environment, in both references to secrets.

    STREAMER__BATCHING__MAX_TEXTS=32                    batching.max_texts
    STREAMER__KAFKA__PROPERTIES__SECURITY_PROTOCOL=SSL  kafka.properties, security.protocol: "_" means "."
    ${env:NAME}  ${file:/run/secrets/name}              inside any string value

What is wrong with it is a ConfigurationError that names the key and where it came from, never a value that
may be a secret.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from streamer import keys
from streamer.delays import topics_of, written
from streamer.errors import ConfigurationError
from streamer.properties import as_text, refusals
from streamer.settings import Config
from streamer.settings.transport import Redis

__all__ = ["Config", "load"]

REFERENCE = re.compile(r"\$\{(env|file):([^}]*)\}")
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Tree = dict[str, Any]


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of `path` (None: the defaults) under `environ`. Raises ConfigurationError."""
    tree = _read(path) if path is not None else {}
    origins = _override(tree, environ)
    where = f"{path}: " if path is not None else ""
    problems = [f"{where}{problem}" for problem in keys.unknown(tree)]
    if problems:
        raise ConfigurationError("\n  ".join(problems))
    written = tree
    try:
        tree = _prepare(_expand(tree, environ, ""))
        config: Config = msgspec.convert(tree, Config, strict=False)
    except _Problem as problem:
        raise ConfigurationError(_sourced(where, problem.key, origins, problem.message)) from None
    except msgspec.ValidationError as error:
        key, message = keys.explain(str(error), written)
        raise ConfigurationError(_sourced(where, key, origins, message)) from None
    if problems := [_sourced(where, key, origins, message) for key, message in _broken_rules(config)]:
        raise ConfigurationError("\n  ".join(problems))
    return config


class _Problem(Exception):
    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


# -- the file ----------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML lets a key be given twice and takes the last: here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Tree:
    try:
        tree = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name the file with --config") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        # The message of the error itself quotes the line, and that may hold a password.
        raise ConfigurationError(f"{place}: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigurationError(f"{path}: not YAML at position {error.position}: {error.reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: expected sections with keys, got {keys.name_of(tree)}")
    # "kafka:" with nothing under it is what a template leaves when there is nothing to say.
    return {
        str(name): {} if section is None and keys.is_section(str(name)) else section
        for name, section in tree.items()
    }


# -- the environment ---------------------------------------------------------------------------------------


def _override(tree: Tree, environ: Mapping[str, str]) -> dict[str, str]:
    """Write what the environment says into the tree; returns which variable set which key."""
    origins: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.upper().startswith(keys.PREFIX):
            continue
        section, *rest = variable[len(keys.PREFIX) :].lower().split("__")
        key = ".".join([section, *rest[:1]])
        kind = keys.kinds().get(key)
        if kind is None or (len(rest) > 1 and (len(rest) > 2 or not isinstance(kind, inspect.DictType))):
            if keys.is_section(key):
                raise ConfigurationError(f"{variable}: {key} is a section; set a key of it, {variable}__...")
            raise ConfigurationError(
                f"{variable}: unknown key {'.'.join([section, *rest])}{keys.near_variable(key)}"
            )
        value = _parse(kind, environ[variable], variable) if len(rest) < 2 else environ[variable]
        at = tree
        *parents, last = (
            [section, *rest[:1]] if len(rest) < 2 else [section, rest[0], rest[1].replace("_", ".")]
        )
        for parent in parents:
            if not isinstance(at.get(parent), dict):
                at[parent] = {}
            at = at[parent]
        at[last] = value
        origins[".".join([*parents, last])] = variable
    return origins


def _parse(kind: inspect.Type, value: str, variable: str) -> Any:
    """A string is taken as it is, so that 123 can be a group and off a name; the rest is read as YAML."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    if any(isinstance(one, inspect.StrType | inspect.LiteralType) for one in map(keys.bare, kinds)):
        nullable = any(isinstance(one, inspect.NoneType) for one in kinds)
        return None if nullable and value in {"", "null"} else value
    try:
        return yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise ConfigurationError(f"{variable}: not a YAML value") from None


# -- values ------------------------------------------------------------------------------------------------


def _expand(node: Any, environ: Mapping[str, str], key: str) -> Any:
    """The tree with its references to secrets replaced by what they point to."""
    if isinstance(node, dict):
        return {name: _expand(value, environ, f"{key}.{name}".lstrip(".")) for name, value in node.items()}
    if isinstance(node, list):
        return [_expand(value, environ, key) for value in node]
    if not isinstance(node, str):
        return node

    def resolve(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind == "env":
            if name not in environ:
                raise _Problem(key, f"the environment variable {name} is not set")
            return environ[name]
        try:
            # Editors and `echo` end a file with a newline that is not part of the secret.
            return Path(name).read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise _Problem(key, f"the file {name} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise _Problem(key, f"the file {name} is not UTF-8") from None

    return REFERENCE.sub(resolve, node)


def _prepare(tree: Tree) -> Tree:
    """Durations as seconds, and librdkafka's properties as strings."""
    for key in keys.durations():
        section, _, name = key.partition(".")
        if not isinstance(found := tree.get(section), dict):
            continue
        if isinstance(value := found.get(name), list):
            found[name] = [_seconds(key, one) if isinstance(one, str) else one for one in value]
        elif isinstance(value, str):
            found[name] = _seconds(key, value)
    for key, kind in keys.kinds().items():
        if not isinstance(kind, inspect.DictType):
            continue
        section, _, name = key.partition(".")
        if isinstance(found := tree.get(section), dict) and name in found:
            found[name] = _properties(key, found[name])
    return tree


def _seconds(key: str, value: str) -> int | float:
    if value.strip().isdecimal():
        return int(value)
    match = DURATION.fullmatch(value.strip())
    if match is None:
        raise _Problem(key, "expected seconds or a duration such as 30s, 15m, 12h, 7d")
    seconds = float(match[1]) * UNIT[match[2]]
    return int(seconds) if seconds.is_integer() else seconds


def _properties(key: str, properties: Any) -> dict[str, str]:
    if properties is None:
        return {}
    if not isinstance(properties, dict):
        raise _Problem(key, f"expected librdkafka properties, name: value, got {keys.name_of(properties)}")
    texts: dict[str, str] = {}
    for name, value in properties.items():
        text = as_text(value)
        if text is None:
            hint = "; write the property's whole name with dots" if isinstance(value, dict) else ""
            raise _Problem(
                f"{key}.{name}", f"expected a string, number or boolean, got {keys.name_of(value)}{hint}"
            )
        texts[str(name)] = text
    return texts


def _broken_rules(config: Config) -> Iterator[tuple[str, str]]:
    """What no single key is to blame for, and what this version does not do."""
    for name in ("properties", "consumer", "producer"):
        for refused, reason in refusals(getattr(config.kafka, name)).items():
            yield f"kafka.{name}.{refused}", f"refused: {reason}"
    topics = msgspec.structs.asdict(config.topics)
    roles = list(topics)
    for number, role in enumerate(roles):
        for other in roles[:number]:
            if topics[role] == topics[other]:
                yield (
                    f"topics.{role}",
                    f"is the topic of topics.{other} too ({topics[role]}); each needs its own",
                )
    delays = config.retry.delays
    if any(later <= earlier for earlier, later in itertools.pairwise(delays)):
        yield "retry.delays", f"each must be longer than the one before it, got {list(map(written, delays))}"
    for name in {*topics_of(config.topics.retry, delays)} & set(topics.values()):
        yield "topics.retry", f"the topic of a delay is {name}, which topics has for something else"
    yield from _broken_rules_of_redis(config.redis)
    if config.window.max_in_flight_bytes < config.window.max_bytes:
        yield "window.max_in_flight_bytes", f"is less than window.max_bytes ({config.window.max_bytes})"


def _broken_rules_of_redis(redis: Redis) -> Iterator[tuple[str, str]]:
    hosts, scheme = len(redis.urls), redis.url.partition(":")[0]
    if redis.cluster and redis.sentinel is not None:
        yield "redis.cluster", "is for a cluster, and redis.sentinel for a master with replicas: set one"
    elif hosts > 1 and not redis.cluster and redis.sentinel is None:
        yield "redis.url", f"names {hosts} hosts: set redis.cluster, or redis.sentinel if they are Sentinels"
    if scheme == "unix" and (redis.cluster or redis.sentinel is not None):
        yield "redis.url", "is a socket of this machine: a cluster and Sentinels have host:port"
    if redis.sentinel_password is not None and redis.sentinel is None:
        yield "redis.sentinel_password", "is for redis.sentinel, which is not set"
    if scheme != "rediss":
        for name in ("ca", "certificate", "key"):
            if getattr(redis, name) is not None:
                yield f"redis.{name}", "is for TLS: let redis.url begin with rediss://"
    if (redis.certificate is None) != (redis.key is None):
        yield "redis.certificate", "goes together with redis.key: set both or neither"


# -- messages ----------------------------------------------------------------------------------------------


def _sourced(file: str, key: str, origins: Mapping[str, str], message: str) -> str:
    return f"{origins[key]}: {key}: {message}" if key in origins else f"{file}{key}: {message}"
