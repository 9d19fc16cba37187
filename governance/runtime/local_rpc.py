"""Local RPC: commands on one machine call a daemon of the same user.

One JSON object per line, over a Unix socket in a folder that only its owner may enter. The kernel
reports the caller's user (SO_PEERCRED); any other user is refused. Answers are
`{"ok": value}` or `{"error": {"what", "why", "fix"}}`.
"""

import json
import logging
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keys.errors import PratiqueError

MAX_LINE = 96 * 2**20
"""Largest request or answer in bytes; it may be a whole document bundle or log."""
CONNECT_SECONDS = 5.0
CLOSING_SECONDS = 0.05
"""How soon a server notices that it is being closed."""
MAX_PATH = 107
"""Longest name of a Unix socket, in bytes (unix(7): 108 with the closing zero)."""
_PEER = struct.Struct("3i")
_log = logging.getLogger("pratique.desk")

Handler = Callable[[str, Mapping[str, Any]], Any]


class LocalRpcFault(PratiqueError):
    """The daemon behind a local socket does not answer, or refused a request."""


def ask(path: Path, method: str, /, seconds: float | None = 60.0, **params: Any) -> Any:
    """Send one request to the daemon at `path` and return its answer.

    Raises LocalRpcFault if nothing listens there, or with the reason if the daemon refuses.
    """
    request = json.dumps({"method": method, "params": params}).encode() + b"\n"
    with _connect(path, seconds) as connection:
        try:
            return _answer(_conversation(connection, request), path)
        except TimeoutError as error:
            raise LocalRpcFault(
                f"The daemon at {path} did not answer within {seconds:.0f} seconds",
                why="it is busy, or stuck; it may still do what was asked",
                fix="read its log and ask for its status",
            ) from error


def _conversation(connection: socket.socket, request: bytes) -> bytes:
    """Return the answer's line, or the part that arrived before the connection ended."""
    try:
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            return stream.readline(MAX_LINE)
    except ConnectionError:
        return b""


def _connect(path: Path, seconds: float | None) -> socket.socket:
    _check_length(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(os.fspath(path))
    except OSError as error:
        connection.close()
        raise LocalRpcFault(
            f"Nothing answers at {path}",
            why="the daemon is not running, or its home is another folder",
            fix=f"start it with `{_program(path)} up`, or name its folder with --home",
        ) from error
    connection.settimeout(seconds)
    return connection


def _program(socket: Path) -> str:
    """Return the program whose daemon listens there: sockets are named after their daemons."""
    return f"pratique-{socket.stem}"


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > MAX_PATH:
        raise LocalRpcFault(
            f"The path {path} is too long for a local socket",
            why=f"the system allows {MAX_PATH} bytes at most",
            fix="choose a home with a shorter path",
        )


def _answer(line: bytes, path: Path) -> Any:
    if not line.endswith(b"\n"):
        raise LocalRpcFault(
            f"The daemon at {path} did not finish its answer",
            why="it is stopping, or an internal error happened",
            fix="read its log and try again",
        )
    answer = json.loads(line)
    if "error" in answer:
        raise LocalRpcFault(**answer["error"])
    return answer["ok"]


def prepare_socket(path: Path) -> None:
    """Make the private folder of a local socket, and remove a socket that was left there.

    Raises LocalRpcFault if the path is too long, or if the folder is open to other users.
    """
    _check_length(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(path.parent)
    path.unlink(missing_ok=True)


def _check_private(folder: Path) -> None:
    if folder.stat().st_mode & 0o077:
        raise LocalRpcFault(
            f"The folder {folder} is open to other users",
            why="whoever may enter it could send requests to the daemon",
            fix=f"chmod 700 {folder}",
        )


class LocalRpcServer:
    """Serves a daemon's local socket from threads until closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        """Listen at `path`. Raises LocalRpcFault if its folder is open to other users."""
        prepare_socket(path)
        self._path = path
        self._server = _Server(os.fspath(path), handler)
        path.chmod(0o600)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(CLOSING_SECONDS,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: str, handler: Handler) -> None:
        self.handler = handler
        super().__init__(path, _Conversation)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 (the base class names it)
        packed = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, user, _ = _PEER.unpack(packed)
        return bool(user == os.getuid())

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (see above)
        _log.exception("a local command met a fault")


class _Conversation(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            line = self.rfile.readline(MAX_LINE)
        except ConnectionError:
            return _log.info("a caller at the local desk went away before it had asked")
        if not line.endswith(b"\n"):
            return None
        answer = json.dumps(self._reply(line)).encode() + b"\n"
        try:
            self.wfile.write(answer)
        except ConnectionError:
            _log.info("a caller at the local desk went away before its answer")

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {"ok": self.server.handler(request["method"], request["params"])}
        except PratiqueError as error:
            return {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return {"error": _unreadable(error)}


def _unreadable(error: Exception) -> dict[str, str]:
    return {
        "what": "The daemon could not read the request",
        "why": f"{type(error).__name__}: {error}",
        "fix": "use the command of the same version as the daemon",
    }
