"""The server app's requests reach the daemon unchanged."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from governance.runtime.local_rpc import LocalRpcServer
from keys.composite import Suite
from server.app import DaemonClient
from server.flower.presence import Presence, PresenceUpdate
from server.home import CoordinatorHome

UPDATE = PresenceUpdate(8, {"DK": Presence(3, 1, 0.5)})


class Daemon:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, params: Mapping[str, Any]) -> Any:
        self.asked.append((method, dict(params)))
        answers = {"sign": base64.b64encode(b"signed").decode(), "news": UPDATE.to_json()}
        return answers.get(method)


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, DaemonClient]]:
    home = CoordinatorHome(Path(tmp_path_factory.mktemp("d")))
    home.path.chmod(0o700)
    answers = Daemon()
    server = LocalRpcServer(home.socket, answers)
    yield answers, DaemonClient(home)
    server.close()


def test_each_request_is_known_to_the_daemon(daemon: tuple[Daemon, DaemonClient]) -> None:
    answers, client = daemon
    assert client.sign(b"d" * 32, Suite.COMPOSITE) == b"signed"
    assert client.presence_update(7, 1.5) == UPDATE
    client.announce(("DK", "EE"))
    client.release("heart", "0" * 32, {"part": {}}, b"\x00\x01")
    assert answers.asked == [
        ("sign", {"message": base64.b64encode(b"d" * 32).decode(), "suite": "ed25519+mldsa65"}),
        ("news", {"count": 7, "wait": 1.5}),
        ("announce", {"countries": ["DK", "EE"]}),
        ("release", {"study": "heart", "run": "0" * 32, "outcome": {"part": {}}, "model": "AAE="}),
    ]
