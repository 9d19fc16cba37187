"""Targets: what daemons and commands of one machine say to each other, and the environment."""

import io
import json
import logging
import os
import socket
from collections.abc import Mapping
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from client.status.model import NodeStatus
from client.status.text import status_lines
from governance.officer import node_link
from governance.officer.node_link import ledger_left, records_warning
from governance.runtime.health import HealthFinding, HealthReport, _Caller, failing_checks
from governance.runtime.homes import absolute
from governance.runtime.local_rpc import _answer, _Conversation
from governance.runtime.log_fields import plain
from governance.runtime.logs import LineFormatter
from governance.runtime.safe_text import escaped, named, pure_json, quoted
from governance.runtime.systemd import Supervisor
from governance.runtime.text_layout import (
    broken,
    display_width,
    in_columns,
    labelled,
    line_width,
)
from server.answers import CoordinatorStatus
from server.commands.options import parsed
from tests.fuzz.target import (
    WIDTH,
    Target,
    joined,
    parts,
    require_seen,
    scratch,
    text,
)
from tests.support.document_samples import AGREED
from tests.support.documents import NOW

RPC, PAGE = "governance/runtime/local_rpc.py", "governance/runtime/health.py"
SAFE, LAYOUT = "governance/runtime/safe_text.py", "governance/runtime/text_layout.py"
AT = NOW.isoformat()
STATUS = {
    "country": "DK",
    "federation": "danube",
    "waiting_for": "idle, connected",
    "connected": True,
    "disputed": True,
    "paused": {"reason": "audit", "since": AT},
    "documents": {
        "agreement": "Heart disease",
        "expires": AT,
        "ends": AT,
        "signatures": "Ed25519",
        "countries": {"EE": AT},
        "versions": {"root": 1},
        "own": {"version": 4, "expires": AT},
        "absent": {"NO": "its documents have expired"},
        "ignored": ["country-PT: not signed"],
        "fault": None,
        "officer": {"key": "SHA256:a", "announced": None},
    },
    "data": {"file": "a.csv", "version": "sha256:b", "patients": 80, "fault": None},
    "ledger": {
        "register": "patients",
        "period_start": AT,
        "period_end": AT,
        "order": 8,
        **dict.fromkeys(("cap_micro", "spent_micro", "left_micro", "lifetime_micro"), 1),
        **dict.fromkeys(("share_spent", "delta", "epsilon"), 0.5),
        **dict.fromkeys(("epsilon_spent", "epsilon_left", "epsilon_lifetime"), 0.5),
    },
    "studies": [{"id": "heart", "title": "Heart", "digest": "sha256:c", "standing": "permitted"}],
    "runs": [{"run": "0" * 32, "study": "heart", "entered": AT}],
    "refusals": [
        {
            "at": AT,
            "code": "stale",
            "what": "The request is old",
            **dict.fromkeys(("why", "fix", "clause"), ""),
            **dict.fromkeys(("study", "run", "round", "phase")),
        }
    ],
    "restored": {"at": AT, "entries": 7, "before": None, "ended": 1, "assumed": ["heart"]},
    "log": {"origin": "pratique/dk/node", "size": 9},
    "clock": None,
}
"""What a daemon says about a node."""
FAULT = {"what": "It is locked", "why": "the key is away", "fix": "bring it"}
ANSWERS = tuple(json.dumps(each).encode() for each in ({"ok": STATUS}, {"error": FAULT}))


def _rpc_answer(line: bytes) -> None:
    """Read a daemon's answer to a command, and what commands make of a status."""
    answer = _answer(line.replace(b"\n", b" ") + b"\n", Path("node.sock"))
    try:
        for shown in status_lines(NodeStatus.from_json(answer)):
            require_seen(*broken(shown, WIDTH))
    finally:
        parsed(CoordinatorStatus, answer)


def _stated(line: bytes) -> None:
    """Read what an officer's node says about its records and its ledger."""
    folder = scratch() / "node"
    if not folder.exists():
        (folder / "run").mkdir(parents=True)
        (folder / node_link.SOCKET).touch()

    def ask(path: Path, *_: object) -> Any:
        return _answer(line.replace(b"\n", b" ") + b"\n", path)

    with patch.object(node_link, "ask", ask):
        require_seen(*broken(records_warning(folder), WIDTH))
        ledger_left(folder, AGREED, "patients", NOW)


def _rpc_request(line: bytes) -> None:
    """Read a command's request: the daemon answers every line, and its answer is one line."""
    asked: list[str] = []

    def handler(method: str, params: Mapping[str, Any]) -> Any:
        asked.append(method)
        return dict(params)

    conversation = _Conversation.__new__(_Conversation)
    conversation.server = SimpleNamespace(handler=handler)  # type: ignore[assignment]
    conversation.rfile = io.BytesIO(line.replace(b"\n", b" ") + b"\n")
    conversation.wfile = answer = io.BytesIO()
    conversation.handle()
    assert answer.getvalue().count(b"\n") == 1
    _answer(answer.getvalue(), Path("node.sock"))


class _Caught:
    """A caller's connection: what it sends, and what it gets."""

    def __init__(self, request: bytes) -> None:
        self.request, self.answer = request, b""

    def makefile(self, *_: object, **__: object) -> io.BytesIO:
        return io.BytesIO(self.request)

    def sendall(self, data: bytes) -> None:
        self.answer += bytes(data)

    def settimeout(self, _: float) -> None:
        """Ignore it: nothing here waits."""


@cache
def _health() -> HealthReport:
    good = {"link": HealthFinding(good=True, says="connected")}
    return HealthReport(CollectorRegistry(), lambda: good, lambda: good)


def _page(request: bytes) -> None:
    """Answer an HTTP request for metrics or health; nothing of it is repeated."""
    connection = _Caught(request)
    server = SimpleNamespace(shown=_health(), hosts={"127.0.0.1:9100"})
    _Caller(connection, ("127.0.0.1", 1), server)  # type: ignore[arg-type]
    assert len(connection.answer) < 4096
    assert b"127.0.0.1:9100" in request or b"connected" not in connection.answer


def _health_answer(data: bytes) -> None:
    """Read what answers at a daemon's health page, which may be any program."""

    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)

    def connect(self: HTTPConnection) -> None:
        self.sock = ours

    with ours, theirs, patch.object(HTTPConnection, "connect", connect):
        for name, says in failing_checks("127.0.0.1:9100").items():
            require_seen(*broken(f"{name}: {says}", WIDTH))


def _text_of_others(shown: str) -> None:
    """Show a text of another party on every surface."""
    require_seen(escaped(shown), quoted(shown), named(shown), plain(shown))
    require_seen(*pure_json({shown[:20]: [shown]}, indent=1).split("\n"))
    assert json.loads(pure_json(shown)) == shown
    for lines in (
        broken(shown, WIDTH),
        labelled([("label", shown)], WIDTH),
        in_columns([("a", "b"), (shown, shown[:10])], WIDTH),
    ):
        require_seen(*lines)
        assert all(display_width(line) <= WIDTH for line in lines)
    inside = quoted(shown)[1:].rpartition('"')[0]
    assert '"' not in inside.replace("\\\\", "").replace('\\"', "")


def _log_line(message: bytes, field: bytes) -> None:
    """Write a log line with a text of another party in it: it is one line of JSON."""
    shown = [each.decode(errors="surrogateescape") for each in (message, field)]
    record = logging.makeLogRecord({"name": "pratique.node", "msg": "refused"})
    vars(record).update(what=shown[0], why=shown[1], country=shown[1])
    line = LineFormatter().format(record)
    require_seen(line)
    assert isinstance(json.loads(line), dict)


def _environment(columns: bytes, notify: bytes, watchdog: bytes) -> None:
    """Read the variables of the environment that programs use."""
    named_ = [
        each.decode(errors="surrogateescape").replace("\0", "")
        for each in (columns, notify, watchdog)
    ]
    with patch.dict(os.environ, {"COLUMNS": named_[0]}):
        assert line_width() > 0
    supervisor = Supervisor({"NOTIFY_SOCKET": named_[1], "WATCHDOG_USEC": named_[2]})
    assert (supervisor.watchdog_seconds or 1) > 0


def _path(typed: str) -> None:
    """Read the path of an option: it can be stored as UTF-8 text, or is refused."""
    found = absolute(Path(typed.replace("\0", "")))
    assert found.is_absolute()
    str(found).encode()


REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1:9100\r\nAccept: text/plain\r\n\r\n"
HEALTH = json.dumps({"good": False, "checks": {"link": {"good": False, "says": "lost"}}}).encode()
HTTP_ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(HEALTH), HEALTH)
DAEMON_TARGETS: dict[str, Target] = {
    "request of a command": Target(
        _rpc_request, (b'{"method": "status", "params": {"a": [1, "x"]}}',), (RPC,)
    ),
    "answer of a daemon": Target(
        _rpc_answer, ANSWERS, (RPC, "client/status/model.py", "server/commands/options.py")
    ),
    "node's records and ledger": Target(_stated, ANSWERS, ("governance/officer/node_link.py",)),
    "page of health": Target(_page, (REQUEST, b"POST / HTTP/1.0\r\n\r\n"), (PAGE,)),
    "answer of a health page": Target(_health_answer, (HTTP_ANSWER,), (PAGE,)),
    "text of others": Target(
        text(_text_of_others),
        ('A title\u202e \U000e0041 \u3164 "x\\" \n e\u0301\u0301'.encode(), b"a  b\x1b[2J"),
        (SAFE, LAYOUT),
    ),
    "log line": Target(
        parts(_log_line, 2), (joined(b"It is full", b"AT"),), ("governance/runtime/logs.py",)
    ),
    "environment": Target(
        parts(_environment, 3),
        (joined(b"80", b"/run/notify", b"30000000"), joined(b"", b"@x", b"")),
        (LAYOUT, "governance/runtime/systemd.py"),
    ),
    "path of an option": Target(
        text(_path),
        (b"~/records.csv", b"a/../b", b"~nobody-there/x"),
        ("governance/runtime/homes.py",),
    ),
}
