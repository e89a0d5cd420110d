"""The command line without servers: help, errors, exit codes, schemas, rows of files, log lines."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from streamer import __version__, cli, logs
from streamer.cli import rows, signals
from streamer.cli.publish import _message
from streamer.cli.rows import Fields, Refused, Row
from streamer.config import Config
from streamer.errors import (
    ConfigurationError,
    DeviceError,
    FatalError,
    RecordError,
    StartupError,
    StreamerError,
    UsageError,
)

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "redis", "confluent_kafka", "rich")


def streamer(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer", *arguments]
    return subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environ,
        timeout=60,
    )


class TestMain:
    def test_version(self) -> None:
        done = streamer("--version")
        assert (done.returncode, done.stdout) == (0, f"streamer {__version__}\n")

    def test_help_lists_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["--help"])
        assert ended.value.code == 0
        listed = capsys.readouterr().out
        assert [name for name in cli.COMMANDS if f"\n    {name}" not in listed] == []

    @pytest.mark.parametrize("command", [["run"], ["publish"], ["tail"], ["check"], ["topics", "create"]])
    def test_each_has_a_help(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--help"])
        assert ended.value.code == 0
        assert "--config" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["frobnicate"],
            ["run", "--frobnicate"],
            ["run", "--exit-when-idle", "-1"],
            ["run", "--exit-when-idle", "nan"],
            ["publish"],
            ["publish", "x", "--rate", "0"],
            ["publish", "x", "--format", "xml"],
            ["tail", "--max", "0"],
            ["schema", "nothing"],
            ["topics"],
            ["topics", "create", "--partitions", "0"],
        ],
    )
    def test_a_wrong_command_line_is_2(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        assert "error: " in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["run", "publish -", "tail", "check", "topics create"])
    def test_a_wrong_configuration_is_2(self, command: str, tmp_path: Path) -> None:
        path = tmp_path / "streamer.yaml"
        path.write_text("batching: {max_txts: 1}")
        done = streamer(*command.split(), "--config", str(path))
        assert done.returncode == 2
        assert f"{path}: batching.max_txts: unknown key; did you mean max_texts?" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [["--help"], ["run", "--help"], ["schema"], ["tail", "--config", "/nope"], ["frobnicate"]],
    )
    def test_nothing_heavy_is_imported_before_it_is_needed(self, arguments: list[str]) -> None:
        code = (
            "import sys; from streamer.cli import main\n"
            f"try: main({arguments!r})\nexcept SystemExit: pass\n"
            f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "heavy: []"


class TestFailures:
    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
        def fail_with(error: BaseException) -> None:
            def run(args: object) -> int:
                raise error

            monkeypatch.setattr("streamer.cli.schema.run", run)

        return fail_with

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (StreamerError("why"), 1),
            (ConfigurationError("why"), 2),
            (StartupError("why"), 3),
            (FatalError("why"), 5),
            (DeviceError("why"), 6),
        ],
    )
    def test_our_errors_have_their_code_and_message(
        self, failing: Any, error: StreamerError, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        failing(error)
        assert cli.main(["schema"]) == code
        assert capsys.readouterr().err == f"streamer: error: {error}\n"

    def test_ctrl_c_is_130(self, failing: Any) -> None:
        failing(KeyboardInterrupt())
        assert cli.main(["schema"]) == 130

    def test_an_unexpected_error_shows_no_text_and_no_traceback(
        self, failing: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        failing(ValueError("the text of a customer"))
        assert cli.main(["schema"]) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("streamer: error: unexpected ValueError at test_cli.py:")
        assert "--debug" in shown
        assert "customer" not in shown and "Traceback" not in shown

    def test_debug_shows_the_traceback(self, failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
        failing(ValueError("the text of a customer"))
        assert cli.main(["schema", "--debug"]) == 1
        shown = capsys.readouterr().err
        assert "Traceback" in shown and "customer" in shown

    def test_an_error_of_the_system_says_what_and_where(
        self, failing: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        failing(PermissionError(13, "Permission denied", "/somewhere"))
        assert cli.main(["schema"]) == 1
        assert capsys.readouterr().err == "streamer: error: /somewhere: Permission denied\n"

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        command = f"{sys.executable} -m streamer schema | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout in {"141\n", "0\n"}  # 0 when `true` was still there
        assert done.stderr == ""


class TestSchema:
    @pytest.mark.parametrize(
        ("what", "name"), [("input", "text"), ("result", "label"), ("dead-letter-headers", "dlq.reason")]
    )
    def test_one(self, what: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["schema", what]) == 0
        schema = json.loads(capsys.readouterr().out)
        properties = schema if "properties" in schema else schema["$defs"][schema["$ref"].rpartition("/")[2]]
        assert name in properties["properties"]
        assert name in properties["required"]

    def test_all_and_always_the_same(self) -> None:
        first, second = streamer("schema", PYTHONHASHSEED="1"), streamer("schema", PYTHONHASHSEED="2")
        assert first.stdout == second.stdout
        assert list(json.loads(first.stdout)) == ["dead-letter-headers", "input", "result"]


def read(contents: str | bytes, format: rows.Format, fields: Fields = Fields()) -> list[Row | Refused]:  # noqa: B008
    data = contents.encode() if isinstance(contents, str) else contents
    raw = io.BufferedReader(cast(Any, io.BytesIO(data)))
    return list(rows.read(raw, format, fields, "file"))


class TestRows:
    @pytest.mark.parametrize(
        ("name", "format"),
        [
            ("a.csv", "csv"),
            ("a.CSV", "csv"),
            ("a.csv.gz", "csv"),
            ("a.jsonl", "jsonl"),
            ("a.ndjson.gz", "jsonl"),
            ("a.txt", "lines"),
            ("-", "lines"),
        ],
    )
    def test_format_by_extension(self, name: str, format: str) -> None:
        assert rows.format_of(name) == format

    def test_lines(self) -> None:
        assert read("a\r\n\n b \n  \nc", "lines") == [
            Row(1, "a"),
            Refused(2, "the text is empty"),
            Row(3, " b "),
            Refused(4, "the text is empty"),
            Row(5, "c"),
        ]

    def test_a_carriage_return_or_a_form_feed_is_not_the_end_of_a_line(self) -> None:
        assert read("a\rb\x0cc\u2028d\n", "lines") == [Row(1, "a\rb\x0cc\u2028d")]

    def test_csv(self) -> None:
        text = '\ufeffid,text,label\n1,"two\nlines",p\n,plain,n\n3,,n\n4\n5,x,y,z\n'
        assert read(text, "csv") == [
            Row(3, "two\nlines", "1"),
            Row(4, "plain"),
            Refused(5, "the text is empty"),
            Refused(6, "no 'text'"),
            Refused(7, "more fields than the first line has names"),
        ]

    def test_csv_columns_by_name(self) -> None:
        fields = Fields("review", "nr", "shop", meta=True)
        assert read("nr,review,shop\n1,good,s7\n", "csv", fields) == [
            Row(2, "good", "1", "s7", {"shop": "s7"})
        ]

    @pytest.mark.parametrize(
        ("fields", "option"),
        [(Fields("txt"), "--text-field"), (Fields(id="nr"), "--id-field"), (Fields(key="k"), "--key-field")],
    )
    def test_csv_without_the_column(self, fields: Fields, option: str) -> None:
        with pytest.raises(UsageError, match=f"only id, text: name the right one with {option}"):
            read("id,text\n1,a\n", "csv", fields)

    def test_an_empty_csv(self) -> None:
        with pytest.raises(UsageError, match="an empty first line"):
            read("", "csv")

    def test_a_long_csv_field(self) -> None:
        assert read("text\n" + "x" * 200_000, "csv") == [Row(2, "x" * 200_000)]

    def test_json_lines(self) -> None:
        text = '{"id":1,"text":"a","meta":{"b":2}}\n\n{"text":5}\n{"id":[],"text":"a"}\n'
        text += '[]\n{\n{"id":true,"text":"a"}\n{}'
        assert read(text, "jsonl") == [
            Row(1, "a", 1, None, {"b": 2}),
            Refused(3, "'text' is not a string"),
            Refused(4, "'id' is neither a string nor a whole number"),
            Refused(5, "not a JSON object"),
            Refused(6, "not JSON"),
            Refused(7, "'id' is neither a string nor a whole number"),
            Refused(8, "no 'text'"),
        ]

    def test_json_lines_with_meta(self) -> None:
        assert read('{"id":"x","text":"a","n":1}', "jsonl", Fields(meta=True)) == [
            Row(1, "a", "x", None, {"n": 1})
        ]

    def test_nesting_without_end(self) -> None:
        assert read('{"text":' + "[" * 200_000, "jsonl") == [Refused(1, "not JSON")]

    def test_bytes_that_are_not_utf8_do_not_stop_the_file(self) -> None:
        first, second = read(b"\xff\xfe\nfine\n", "lines")
        assert isinstance(first, Row)
        with pytest.raises(UnicodeEncodeError):
            _message(first, "json")
        assert second == Row(2, "fine")

    def test_gzip_is_seen_by_its_contents(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(gzip.compress(b"a\nb\n"))
        with rows.opened(str(path)) as (contents, _):
            assert [row.line for row in rows.read(contents, "lines", Fields(), "a")] == [1, 2]

    def test_a_damaged_gzip_keeps_what_came_before(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt.gz"
        path.write_bytes(gzip.compress(b"line\n" * 100_000)[:-20])
        with rows.opened(str(path)) as (contents, _):
            found = rows.read(contents, "lines", Fields(), "a.txt.gz")
            assert next(found) == Row(1, "line")
            with pytest.raises(StreamerError, match=r"a\.txt\.gz is a damaged gzip file"):
                list(found)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="No such file"), rows.opened(str(tmp_path / "no")):
            pass

    @pytest.mark.parametrize("format", ["json", "msgpack", "text"])
    def test_what_is_published_is_what_the_worker_decodes(self, format: Any) -> None:
        from streamer.codec import Decoder
        from streamer.records import Record

        value, headers = _message(Row(1, "好", 7, None, {"a": 1} if format != "text" else None), format)
        record = Record("t", 0, 0, 0, None, value, list(headers.items()))
        id, text = Decoder(format, ("header", "field"), 1000).decode(record)
        assert (id, text.text) == ("7", "好")


class FakeEngine:
    """Records what is done to it; `run` raises `error` or waits for `stop`."""

    def __init__(self, error: BaseException | None = None, pid_to_signal: int | None = None) -> None:
        from streamer.metrics import Metrics

        self.metrics = Metrics()
        self.done: list[str] = []
        self._error = error
        self._pid = pid_to_signal

    def run(self, exit_when_idle: float | None = None) -> None:
        self.done.append(f"run {exit_when_idle}")
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
        if self._error:
            raise self._error

    def stop(self) -> None:
        self.done.append("stop")

    def leave(self) -> None:
        self.done.append("leave")

    def close(self) -> None:
        self.done.append("close")


class TestRun:
    @pytest.fixture(autouse=True)
    def restored(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        yield
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("streamer").setLevel(logging.NOTSET)
        logging.captureWarnings(False)
        for number, handler in previous.items():
            signal.signal(number, handler)

    @pytest.fixture
    def built(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeEngine], None]:
        def built(engine: FakeEngine) -> None:
            app = ModuleType("streamer.app")
            app.build = lambda config, metrics: engine  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "streamer.app", app)

        return built

    def test_it_runs_until_idle(self, built: Any, capfd: pytest.CaptureFixture[str]) -> None:
        engine = FakeEngine()
        built(engine)
        assert cli.main(["run", "--exit-when-idle", "2"]) == 0
        assert engine.done == ["run 2.0"]
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        assert "texts.in to sentiment.out" in lines[0]["message"]
        assert lines[-1]["message"].startswith("done: 0 results")

    def test_a_signal_stops_it(self, built: Any) -> None:
        engine = FakeEngine(pid_to_signal=os.getpid())
        built(engine)
        assert cli.main(["run"]) == 0
        assert engine.done == ["run None", "stop"]

    def test_a_signal_before_there_is_an_engine_ends_it_in_good_order(self, tmp_path: Path) -> None:
        """Told while it loads the model: nothing was read, so nothing is to be finished."""
        loading = tmp_path / "loading"
        code = (
            "import sys, time, types, pathlib\n"
            "def build(config, metrics):\n"
            f"    pathlib.Path({str(loading)!r}).touch()\n"
            "    time.sleep(60)\n"
            "app = sys.modules['streamer.app'] = types.ModuleType('streamer.app')\n"
            "app.build, app.kafka_settings = build, None\n"
            "from streamer.cli import main\n"
            "sys.argv[1:] = ['run']\n"
            "sys.exit(main())"
        )
        worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while not loading.exists() and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        worker.terminate()
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 0, err
        assert "Traceback" not in err

    def test_a_worker_can_be_told_to_end_from_its_first_line_on(self) -> None:
        """Before its modules are imported, where most of an idle start goes."""
        code = (
            "import os, signal, sys, streamer.cli as cli\n"
            "cli._parser = lambda argv: os.kill(os.getpid(), signal.SIGTERM)\n"
            "sys.argv[1:] = [sys.argv[1]]\n"
            "sys.exit(cli.main())"
        )
        codes = {
            command: subprocess.run([sys.executable, "-c", code, command], cwd=ROOT, check=False).returncode
            for command in ("run", "retry", "tail")
        }
        assert codes == {"run": 0, "retry": 0, "tail": -signal.SIGTERM}

    def test_the_error_that_ends_it_is_in_the_log(
        self, built: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        engine = FakeEngine()
        built(engine)

        def build(config: object, metrics: object) -> FakeEngine:
            raise StartupError("no topic texts.in: create it with `streamer topics create`")

        sys.modules["streamer.app"].build = build  # type: ignore[attr-defined]
        config = ROOT / "config/streamer.yaml"
        assert cli.main(["run", "--config", str(config)]) == 3
        last = [json.loads(line) for line in capfd.readouterr().err.splitlines()][-1]
        assert (last["level"], last["exit_code"]) == ("error", 3)
        assert last["message"].endswith(f"create it with `streamer topics create --config {config}`")

    def test_a_second_signal_leaves_at_once(self, built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Left(BaseException):
            pass

        codes: list[int] = []

        def leave(code: int) -> None:
            codes.append(code)
            raise Left

        monkeypatch.setattr(signals, "leave", leave)
        stops: list[int] = []
        signals.handle(lambda: stops.append(1))
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stops, codes) == ([1], [])
        with pytest.raises(Left):
            os.kill(os.getpid(), signal.SIGINT)
        assert (stops, codes) == ([1], [130])

    def test_a_fatal_error_closes_without_a_commit(
        self, built: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        engine = FakeEngine(FatalError("fenced"))
        built(engine)
        assert cli.main(["run"]) == 5
        assert engine.done == ["run None", "leave", "close"]
        assert json.loads(capfd.readouterr().err.splitlines()[-1])["exit_code"] == 5

    def test_a_broken_device_does_not_wait_for_its_thread(
        self, built: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codes: list[int] = []
        monkeypatch.setattr(signals, "leave", codes.append)
        engine = FakeEngine(DeviceError("hung"))
        built(engine)
        cli.main(["run"])
        assert codes == [6]
        assert engine.done == ["run None", "close"]

    def test_a_defect_is_logged_without_its_message(
        self, built: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        engine = FakeEngine(ValueError("the text of a customer"))
        built(engine)
        assert cli.main(["run"]) == 1
        assert engine.done == ["run None", "close"]
        shown = capfd.readouterr().err
        assert "ValueError" in shown and "test_cli.py" in shown
        assert "customer" not in shown


class TestLogs:
    @staticmethod
    def record(
        message: str, *values: object, level: int = logging.INFO, **extra: object
    ) -> logging.LogRecord:
        return logging.getLogger("streamer.x").makeRecord(
            "streamer.x", level, __file__, 1, message, values, None, extra=extra
        )

    def test_json(self) -> None:
        line = logs.JsonFormatter().format(self.record("%d done", 3, partitions=[("t", 0)], odd=object))
        assert "\n" not in line
        found = json.loads(line)
        assert found["ts"].endswith("+00:00")
        assert (found["level"], found["logger"], found["message"]) == ("info", "streamer.x", "3 done")
        assert found["partitions"] == [["t", 0]]
        assert set(found) == {"ts", "level", "logger", "message", "partitions", "odd"}

    def test_text_is_one_line_that_cannot_steer_the_terminal(self) -> None:
        line = logs.TextFormatter(colours=True).format(self.record("a\nb\x1b[2J", level=logging.ERROR, n=1))
        assert line.startswith("\x1b[31m") and line.endswith("n=1\x1b[0m")
        assert line.count("\x1b") == 2 and "\n" not in line

    @pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.TextFormatter(colours=False)])
    def test_an_exception_keeps_its_message_to_itself_unless_it_is_ours(
        self, formatter: logging.Formatter
    ) -> None:
        for error, shown in ((ValueError("customer"), False), (RecordError("empty", "customer"), True)):
            record = self.record("failed")
            try:
                raise error
            except Exception:
                record.exc_info = sys.exc_info()
            line = formatter.format(record)
            assert type(error).__name__ in line or shown
            assert ("customer" in line) is shown
            assert "test_cli.py" in line

    def test_the_configuration_can_be_logged(self) -> None:
        line = logs.JsonFormatter().format(self.record("configuration", **Config().redacted()))
        assert json.loads(line)["kafka"]["group_id"] == "streamer"


def test_what_a_model_says_of_itself_has_no_coefficients(caplog: pytest.LogCaptureFixture) -> None:
    from streamer import backends

    caplog.set_level(logging.INFO, logger="streamer.backends")
    described = {"name": "m", "device": "cpu", "flops_of_text": (1.0000001, 2.0, 3.0)}
    backends.ready(loading=5.0, warming=0.75, described=described)
    (line,) = caplog.records
    assert line.getMessage() == "model ready after 5.8 s: 5.0 s to load it, 0.8 s to warm it up"
    assert vars(line)["model"] == {"name": "m", "device": "cpu"}


def test_days_are_rounded() -> None:
    from streamer.cli.check import _days

    assert (_days(2_419_208_640), _days(604_800_000), _days(-1)) == ("28 days", "7 days", "for ever")
