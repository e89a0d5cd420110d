"""The command line: one module a command, imported when it is asked for.

A command module has NAME and HELP, `configure(parser)`, which adds its options, and `run(args)`, which
returns the exit code. Importing one is cheap: torch, redis and confluent_kafka are imported inside `run`.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from streamer import __version__
from streamer.cli import hints, signals
from streamer.errors import StreamerError

COMMANDS = (
    "run",
    "retry",
    "demo",
    "bench",
    "plan",
    "publish",
    "tail",
    "check",
    "health",
    "schema",
    "topics",
    "dlq",
)
WORKERS = ("run", "retry")  # they end in good order when they are told to
INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell says of a process that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; docs/configuration.md lists them."""
    if argv is None:
        argv = sys.argv[1:]
        if argv and argv[0] in WORKERS:
            # Until there is something to finish: a model takes a while to load.
            signals.handle(sys.exit)
    args: argparse.Namespace | None = None
    try:
        args = _parser(argv).parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()  # here, where a reader that has gone is still understood
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `streamer tail | head`: nothing is wrong. Python must not try to flush the pipe again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        return _fail(error, args or argparse.Namespace())


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamer", description="Texts from a Kafka topic, scored in batches, results to another."
    )
    parser.add_argument("--version", action="version", version=f"streamer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _modules(argv):
        name: str = command.NAME
        subparser = commands.add_parser(name, help=command.HELP, description=command.HELP)
        subparser.set_defaults(run=command.run)
        command.configure(subparser)
        for each in subparser, *_nested(subparser):
            each.add_argument(
                "--debug",
                action="store_true",
                default=argparse.SUPPRESS,
                help="show the whole traceback of an error",
            )
    return parser


def _modules(argv: Sequence[str]) -> list[ModuleType]:
    """The module of the command in `argv`; all of them when it has none, for the help and the error."""
    chosen = next((word for word in argv if not word.startswith("-")), None)
    names = [chosen] if chosen in COMMANDS else list(COMMANDS)
    modules = [f"{__name__}.{name}" for name in names]
    return [import_module(module) for module in modules if find_spec(module) is not None]


def _nested(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [
        nested
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for nested in action.choices.values()
    ]


def _fail(error: Exception, args: argparse.Namespace) -> int:
    debug = getattr(args, "debug", False)
    if debug:
        traceback.print_exception(error)
    if isinstance(error, StreamerError):
        message, code = hints.completed(str(error), getattr(args, "config", None)), error.exit_code
    elif isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        message, code = f"{name}{error.strerror}", 1
    else:
        # The message of an error that is not ours may quote a text: its type and its place have to do.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        hint = "" if debug else "; run it again with --debug to see the traceback, and report it"
        message, code = f"unexpected {type(error).__name__} at {place}{hint}", 1
    from streamer import logs

    if not logs.say_last(message, code):
        print(f"streamer: error: {message}", file=sys.stderr)
    return code
