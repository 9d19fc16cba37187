"""The HTTP endpoint for a daemon's metrics and health, on loopback only.

    GET /metrics        Prometheus
    GET /health/live    200, or 503 if the daemon is stuck
    GET /health/ready   200, or 503 if it cannot do its work now

A page in a browser on this machine must not read it: a Host that is not this machine's is refused
(DNS rebinding), and no other origin is allowed. The endpoint serves a few callers at a time, each
for a few seconds; it names no software and logs nothing. Any user of this machine can read it, so
it shows nothing that depends on records.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from governance.runtime.loopback import host_and_port
from governance.runtime.safe_text import pure_json
from keys.errors import PratiqueError, reason_of
from protocols.wire.encoding import check_json

MAX_CALLERS = 8
LONGEST_SECONDS = 5.0
"""The longest time for one caller, whatever it does."""
LARGEST_ANSWER = 64 * 2**10
CLOSING_SECONDS = 0.05
NAMES = ("127.0.0.1", "[::1]", "localhost")
"""Host names that a caller on this machine may use, beside the address of the endpoint."""
JSON_TYPE, TEXT_TYPE = "application/json", "text/plain; charset=utf-8"


class ObserveFault(PratiqueError):
    """The endpoint cannot be opened."""


@dataclass(frozen=True)
class HealthFinding:
    """The result of one check, with a plain sentence."""

    good: bool
    says: str


Checks = Callable[[], Mapping[str, HealthFinding]]


@dataclass(frozen=True)
class HealthReport:
    """What the endpoint shows: metrics, and the checks behind `live` and `ready`."""

    metrics: CollectorRegistry
    live: Checks
    ready: Checks


class HealthServer:
    """The endpoint, served from threads until closed."""

    def __init__(self, address: str, shown: HealthReport) -> None:
        """Listen at `address`, written as in the settings. Raises ObserveFault if it is in use."""
        try:
            self._server = _Server(host_and_port(address), shown)
        except OSError as error:
            raise ObserveFault(
                f"Metrics and health cannot be shown at {address}",
                why=reason_of(error),
                fix="end the program that listens there, or change `observe` in the settings",
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(CLOSING_SECONDS,), name="observe", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def observed(address: str | None, shown: HealthReport) -> Iterator[None]:
    """Serve `shown` at `address` inside the context; if it is None, do not. Raises ObserveFault."""
    if address is None:
        yield
        return
    server = HealthServer(address, shown)
    try:
        yield
    finally:
        server.close()


def failing_checks(address: str) -> dict[str, str]:
    """Ask a daemon for its health: return the sentences of failed checks. Raises ObserveFault."""
    connection = HTTPConnection(*host_and_port(address), timeout=LONGEST_SECONDS)
    try:
        connection.request("GET", "/health/ready", headers={"Host": address})
        answer = connection.getresponse().read(LARGEST_ANSWER)
        checks = json.loads(check_json(answer))["checks"]
        return {name: str(check["says"]) for name, check in checks.items() if not check["good"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HTTPException) as error:
        raise ObserveFault(
            f"Metrics and health do not answer at {address}",
            why=f"nothing answers there, or another program does ({type(error).__name__})",
            fix="start the daemon again if `observe` was set after it started",
        ) from error
    finally:
        connection.close()


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], shown: HealthReport) -> None:
        self.shown = shown
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CALLERS)
        super().__init__(address, _Caller)
        port = self.server_address[1]
        self.hosts = frozenset(f"{name}:{port}" for name in (*NAMES, address[0]))

    def server_bind(self) -> None:
        """Bind without asking a name server for the machine's name, as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        cut = threading.Timer(LONGEST_SECONDS, _cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a caller that disconnects; the base class would print an error."""


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already


class _Caller(BaseHTTPRequestHandler):
    server: _Server
    timeout = LONGEST_SECONDS

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            self._send_text(
                HTTPStatus.MISDIRECTED_REQUEST, "This endpoint is not for that host name."
            )
            return
        shown = self.server.shown
        match self.path.partition("?")[0]:
            case "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._send(HTTPStatus.OK, kind, encode(shown.metrics))
            case "/health/live":
                self._send_checks(shown.live())
            case "/health/ready":
                self._send_checks(shown.ready())
            case _:
                self._send_text(
                    HTTPStatus.NOT_FOUND, "There are /metrics, /health/live, /health/ready."
                )

    def _send_checks(self, checks: Mapping[str, HealthFinding]) -> None:
        good = all(check.good for check in checks.values())
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        shown = {name: {"good": check.good, "says": check.says} for name, check in checks.items()}
        content = pure_json({"good": good, "checks": shown}, indent=1)
        self._send(status, JSON_TYPE, content.encode() + b"\n")

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, TEXT_TYPE, text.encode() + b"\n")

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def send_error(
        self,
        code: int,
        message: str | None = None,  # noqa: ARG002 (it quotes the request)
        explain: str | None = None,  # noqa: ARG002
    ) -> None:
        """Answer a request that is malformed or no GET, without quoting it."""
        self.close_connection = True
        wrong_method = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if wrong_method else code
        self._send(status, TEXT_TYPE, b"Only GET is answered here.\n")

    def log_message(self, *_: Any) -> None:
        """Log nothing: requests are not recorded."""
