"""The daemon's clockwork, piece by piece; the whole is in the demo."""

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from server import daemon
from server.daemon import _end_abandoned, _end_orphans, _forward_by, _watch_over, only_one
from server.errors import OperationFault
from server.home import CoordinatorHome
from server.runs import RunState, RunStore
from tests.support.fleet import LOOPBACK, now

RUN = "a" * 32
STUDY = "sha256:" + "5" * 64


def test_one_daemon_at_a_time_in_a_folder(tmp_path: Path) -> None:
    home = CoordinatorHome(tmp_path)
    with only_one(home):
        with pytest.raises(OperationFault, match="already") as caught, only_one(home):
            pytest.fail("two held it")
        assert "stop it first" in caught.value.fix
    with only_one(home):
        pass


class FleetServer(BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(207)
        self.end_headers()
        self.wfile.write(b"answer")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    FleetServer.seen = []
    made = HTTPServer((LOOPBACK, 0), FleetServer)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def forwarded(port: int, method: str = "PullMessages", **headers: str) -> tuple[int, bytes]:
    async def act() -> tuple[int, bytes]:
        url = f"http://{LOOPBACK}:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=2) as client:
            answer: tuple[int, bytes] = await _forward_by(client)(method, b"body", headers)
            return answer

    return asyncio.run(act())


def test_a_fleet_call_goes_to_its_path_as_protobuf(server: HTTPServer) -> None:
    assert forwarded(server.server_port, **{"flwr-a": "b"}) == (207, b"answer")
    ((path, headers, body),) = FleetServer.seen
    assert (path, body) == ("/v1/fleet/pull-messages", b"body")
    assert headers["flwr-a"] == "b"
    assert headers["content-type"] == headers["accept"] == "application/protobuf"


def test_a_call_outside_the_list_has_no_path(server: HTTPServer) -> None:
    with pytest.raises(KeyError):
        forwarded(server.server_port, "GetFab")
    assert not FleetServer.seen


def test_a_superlink_that_is_gone_is_a_passing_status() -> None:
    assert forwarded(1) == (503, b"")


class Flower:
    def __init__(self, *rows: dict[str, str], fault: Exception | None = None) -> None:
        self.rows, self.fault, self.listed = list(rows), fault, 0
        self.gone: str | None = None

    def runs(self) -> list[dict[str, str]]:
        self.listed += 1
        if self.fault is not None:
            raise self.fault
        return self.rows

    def failed(self) -> str | None:
        return self.gone


def office(engine: Engine, flower: Flower) -> Any:
    return SimpleNamespace(
        runs=RunStore(engine),
        superlink=flower,
        clock=now,
        home=SimpleNamespace(superlink=Path("/home/superlink")),
        repository=SimpleNamespace(refresh=lambda *_, **__: None),
        keys=SimpleNamespace(online=None),
    )


def running(made: Any, *, silent: bool = True) -> None:
    moment = now() - timedelta(hours=1) if silent else now()
    made.runs.create(RUN, STUDY, moment)
    made.runs.carried_by(RUN, 77)
    made.runs.move(RUN, RunState.RUNNING, moment)


def test_a_run_whose_server_app_died_is_ended_with_flower_s_account(engine: Engine) -> None:
    made = office(engine, Flower({"run-id": "77", "status": "finished:failed"}))
    running(made)
    _end_abandoned(made)
    row = made.runs.get(RUN)
    assert row.state == "failed"
    assert "finished:failed" in row.reason


@pytest.mark.parametrize("status", ["running", "pending", "starting"])
def test_a_slow_run_is_left_alone(engine: Engine, status: str) -> None:
    made = office(engine, Flower({"run-id": "77", "status": status}))
    running(made)
    _end_abandoned(made)
    assert made.runs.get(RUN).state == "running"


def test_flower_is_not_asked_about_a_run_that_moves(engine: Engine) -> None:
    made = office(engine, Flower())
    running(made, silent=False)
    _end_abandoned(made)
    assert made.superlink.listed == 0


def test_a_flower_that_does_not_answer_ends_nothing(engine: Engine) -> None:
    made = office(engine, Flower(fault=OperationFault("Flower did not answer")))
    running(made)
    _end_abandoned(made)
    assert made.superlink.listed == 1
    assert made.runs.get(RUN).state == "running"


def test_runs_of_a_daemon_that_ended_have_ended(engine: Engine) -> None:
    made = office(engine, Flower())
    running(made, silent=False)
    _end_orphans(made)
    assert made.runs.unfinished() == []
    assert "ended during the run" in made.runs.get(RUN).reason


def test_the_watch_ends_when_it_is_told(engine: Engine) -> None:
    async def act() -> None:
        stop = asyncio.Event()
        watching = asyncio.ensure_future(_watch_over(office(engine, Flower()), stop))
        await asyncio.sleep(0.1)
        assert not watching.done()
        stop.set()
        await asyncio.wait_for(watching, 2)

    asyncio.run(act())


def test_a_flower_process_that_ended_ends_the_daemon_and_is_named(engine: Engine) -> None:
    flower = Flower()
    flower.gone = "superexec"

    async def act() -> None:
        await _watch_over(office(engine, flower), asyncio.Event())

    with pytest.raises(OperationFault, match="superexec has ended by itself") as caught:
        asyncio.run(act())
    assert "superexec.log" in caught.value.fix


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_to_stop(number: signal.Signals) -> None:
    async def act() -> None:
        stop = daemon._stop_on_signals()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 2)

    asyncio.run(act())


def test_the_link_to_flower_trusts_its_own_certificate_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    make: Callable[..., ssl.SSLContext] = ssl.create_default_context

    def context(**options: Any) -> ssl.SSLContext:
        asked.append(options)
        return make()

    monkeypatch.setattr(daemon.ssl, "create_default_context", context)
    link = SimpleNamespace(root_certificate=tmp_path / "ca.pem", address="127.0.0.1:1")
    client = daemon._flower_client(link)  # type: ignore[arg-type]
    assert asked == [{"cafile": str(tmp_path / "ca.pem")}]
    assert str(client.base_url) == "https://127.0.0.1:1"
    asyncio.run(client.aclose())
