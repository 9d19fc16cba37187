"""Calls forwarded to the SuperLink: their form, and how they wait while it is restarted."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from keys.certificates import TransportAuthority
from server.exchange import forwarding as forwarding_module
from server.exchange.forwarding import Forwarding, flower_client
from tests.support.exchange_server import LOOPBACK, now

Answer = tuple[int, bytes]


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
    http_server = HTTPServer((LOOPBACK, 0), FleetServer)
    thread = threading.Thread(target=http_server.serve_forever, args=(0.05,))
    thread.start()
    yield http_server
    http_server.shutdown()
    thread.join()
    http_server.server_close()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SuperLink here is a port that speaks plain HTTP."""

    def client(port: int) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", timeout=2)

    monkeypatch.setattr(forwarding_module, "flower_client", client)


def forwarded(port: int, method: str = "PullMessages", **headers: str) -> Answer:
    async def act() -> Answer:
        forwarding = Forwarding()
        forwarding.open(port)  # type: ignore[arg-type]
        answer = await forwarding(method, b"body", headers)
        await forwarding.close()
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


def test_a_stopped_superlink_gives_a_temporary_status() -> None:
    assert forwarded(1) == (503, b"")


def test_a_call_waits_for_a_superlink_that_is_being_started(server: HTTPServer) -> None:
    async def act() -> Answer:
        forwarding = Forwarding()
        forwarding.open(1)  # type: ignore[arg-type]
        await forwarding.close()
        call = asyncio.ensure_future(forwarding("PullMessages", b"body", {}))
        await asyncio.sleep(0.1)
        assert not call.done()
        forwarding.open(server.server_port)  # type: ignore[arg-type]
        answer = await asyncio.wait_for(call, 5)
        await forwarding.close()
        return answer

    assert asyncio.run(act()) == (207, b"answer")


def test_a_call_does_not_wait_for_ever() -> None:
    started = time.monotonic()
    assert asyncio.run(Forwarding(hold_seconds=0.1)("PullMessages", b"", {})) == (503, b"")
    assert time.monotonic() - started < 5


def test_a_call_in_progress_gets_a_temporary_status_when_forwarding_closes() -> None:
    async def act(port: int) -> Answer:
        forwarding = Forwarding()
        forwarding.open(port)  # type: ignore[arg-type]
        call = asyncio.ensure_future(forwarding("PullMessages", b"", {}))
        await asyncio.sleep(0.1)
        await forwarding.close()
        return await asyncio.wait_for(call, 5)

    with socket.create_server((LOOPBACK, 0)) as silent_server:
        assert asyncio.run(act(silent_server.getsockname()[1])) == (503, b"")


def test_the_link_to_flower_trusts_only_the_certificate_of_the_superlink(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments: list[Any] = []
    make: Callable[..., ssl.SSLContext] = ssl.create_default_context

    def context(**options: Any) -> ssl.SSLContext:
        arguments.append(options)
        return make()

    monkeypatch.setattr(ssl, "create_default_context", context)
    link = SimpleNamespace(root_certificate=tmp_path / "ca.pem", address="127.0.0.1:1")
    client = flower_client(link)  # type: ignore[arg-type]
    assert arguments == [{"cafile": str(tmp_path / "ca.pem")}]
    assert str(client.base_url) == "https://127.0.0.1:1"
    asyncio.run(client.aclose())


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_no_proxy_of_the_environment_gets_calls_to_flower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "socks5://127.0.0.1:9")
    authority = TransportAuthority.create("loopback", now())
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    link: Any = SimpleNamespace(address="127.0.0.1:1", root_certificate=tmp_path / "ca.pem")
    client = flower_client(link)
    assert not client.trust_env
    asyncio.run(client.aclose())
