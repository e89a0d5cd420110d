"""The HTTP endpoints: /metrics for Prometheus; /healthz, /readyz and /startupz for who restarts and routes.

They run in a thread of their own and only read what the engine publishes in its metrics. The server listens
before the model is loaded, so that a start that takes minutes can be told from one that hangs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streamer.errors import StartupError
from streamer.exposition import Exporter, registry
from streamer.health import Answer, Probes
from streamer.metrics import DeviceFigures, Metrics

log = logging.getLogger(__name__)

# What becomes of a client that says nothing: its thread must not wait for ever.
SILENCE = 10.0


class OpsServer:
    """Serves the endpoints until `close`. Raises StartupError when the address cannot be listened on.

    `hang` is limits.hang_s; `device` reads what the driver says of the device.
    """

    def __init__(
        self,
        metrics: Metrics,
        host: str,
        port: int,
        *,
        hang: float = 300.0,
        device: Callable[[], DeviceFigures | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        probes = Probes(metrics, hang)
        found = registry(Exporter((lambda: metrics, lambda: probes.verdicts(clock()), device), clock))
        routes: Mapping[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(found)),
            "/healthz": lambda: _say(probes.live(clock())),
            "/readyz": lambda: _say(probes.ready()),
            "/startupz": lambda: _say(probes.started()),
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = SILENCE

            def do_GET(self) -> None:
                route = routes.get(self.path.partition("?")[0])
                code, kind, body = route() if route else (404, "text/plain", "\n".join(routes).encode())
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise StartupError(
                f"ops cannot listen on {host}:{port} ({error.strerror}): set ops.host and ops.port, "
                "or for one process on a shared configuration STREAMER__OPS__PORT"
            ) from error
        self.port: int = self._server.server_address[1]
        Thread(target=self._server.serve_forever, name="ops", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _say(answer: Answer) -> tuple[int, str, bytes]:
    return 200 if answer.ok else 503, "application/json", msgspec.json.encode(answer.plain())
