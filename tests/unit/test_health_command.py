"""`streamer health`, asked of a server that answers what the test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from streamer import cli

ANSWERS = {"/healthz": (200, b'{"ok": true}'), "/readyz": (503, b'{"ok": false, "assigned_partitions": 0}')}


@pytest.fixture
def port() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = ANSWERS[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the output of the command alone."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(tmp_path: Path, ops: str, *options: str) -> int:
    file = tmp_path / "streamer.yaml"
    file.write_text(f"ops: {{{ops}}}", "utf-8")
    return cli.main(["health", "--config", str(file), *options])


def test_a_worker_that_is_well(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, f"host: 0.0.0.0, port: {port}") == 0, "found where it listens everywhere"
    assert capsys.readouterr().out == '{"ok": true}\n'


def test_a_worker_that_is_not_ready(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, f"port: {port}", "--ready") == 1
    assert '"assigned_partitions": 0' in capsys.readouterr().out


def test_nobody_there(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, f"host: 127.9.9.9, port: {port}") == 3
    assert f"no worker answers at 127.9.9.9:{port}/healthz" in capsys.readouterr().err


def test_a_worker_without_a_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, "port: null") == 2
    assert "ops.port" in capsys.readouterr().err
