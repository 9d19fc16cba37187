"""The channel repeats calls if the network cuts, duplicates, swaps or swallows data."""

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node

from keys.certificates import TransportAuthority
from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.channel import ExchangeLink, LinkFault
from protocols.wire.proxy import VARIABLES, Route
from server.exchange.relay import Relay
from tests.support.exchange_server import (
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)
from tests.support.proxy import FaultProxy

NODE = 7
LARGE = "metadata/1.root.json"
CONTENT = bytes(range(256)) * 4096
NOTICED = 25.0
"""Seconds; a half-open connection is noticed after fifteen, and more than this is far too long."""


class Line:
    """An exchange behind a proxy, and a party's link through the proxy."""

    def __init__(self) -> None:
        self.authority = TransportAuthority.create("danube", now())
        self.superlink, self.documents = ScriptedSuperLink(), ServedFiles({LARGE: CONTENT})
        relay = Relay(self.superlink.forward, long_poll=20.0)
        relay.open_session("AT", NODE, b"key")
        self.exchange = OpenExchange(
            self.authority, relay, enrolments=None, documents=self.documents
        )
        self.proxy = FaultProxy(self.exchange.port, self.exchange.thread)
        self.link: ExchangeLink = caller(self.authority).link(self.proxy.port, self.authority)
        assert self.link.fetch(LARGE) == CONTENT
        self.proxy.events.clear()

    def poll(self, stop: threading.Event) -> None:
        body = PullMessagesRequest(node=Node(node_id=NODE)).SerializeToString()
        self.link.relay(RelayRequest(method="PullMessages", body=body), 30, stop)

    def close(self) -> None:
        self.link.close()
        self.proxy.close()
        self.exchange.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


BROKEN = [
    ("cut",),
    ("", "cut"),
    ("", "", "cut"),
    ("", "", "", "", "", "cut"),
    ("cut", "cut", "cut"),
    ("double",),
    ("", "", "double"),
    ("", "swap"),
    ("", "", "", "swap"),
]


@pytest.mark.parametrize(
    "events", BROKEN, ids=lambda events: "-".join(event or "ok" for event in events)
)
def test_a_broken_connection_is_replaced_and_the_call_repeated(
    line: Line, events: tuple[str, ...]
) -> None:
    line.proxy.order(*events)
    assert line.link.fetch(LARGE) == CONTENT
    assert line.proxy.events["connection"] >= 1
    hit = sum(line.proxy.events[name] for name in ("cut", "double", "swap"))
    assert hit == sum(bool(event) for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("events", [("mute",), ("half_mute",), ("", "half_mute")])
def test_a_half_open_connection_is_noticed(line: Line, events: tuple[str, ...]) -> None:
    line.proxy.order(*events)
    began = time.monotonic()
    assert line.link.fetch(LARGE) == CONTENT
    assert time.monotonic() - began < NOTICED
    assert line.proxy.events["connection"] == 1


def test_a_call_is_not_repeated_beyond_its_time_limit(line: Line) -> None:
    line.proxy.close()
    began = time.monotonic()
    with pytest.raises(LinkFault):
        line.link.fetch(LARGE, seconds=0.5)
    assert time.monotonic() - began < 3


def test_a_refused_call_is_not_repeated(line: Line) -> None:
    with pytest.raises(LinkFault):
        line.link.relay(RelayRequest(method="GetRun"), 5)
    assert [refusal[1] for refusal in line.exchange.refusals] == ["Relay"]


def test_a_poll_can_be_cancelled_at_once_and_the_channel_stays_usable(line: Line) -> None:
    stop = threading.Event()
    faults: list[LinkFault] = []

    def poll() -> None:
        try:
            line.poll(stop)
        except LinkFault as fault:
            faults.append(fault)

    waiting = threading.Thread(target=poll)
    waiting.start()
    time.sleep(0.3)
    stop.set()
    waiting.join(5)
    assert len(faults) == 1
    assert line.link.fetch(LARGE) == CONTENT


def test_closing_ends_the_wait_before_the_next_attempt(line: Line) -> None:
    line.proxy.close()
    closer = threading.Timer(0.3, line.link.close)
    closer.start()
    with pytest.raises(LinkFault):
        line.link.fetch(LARGE, seconds=60)
    closer.join()


def test_each_call_measures_the_exchange_s_clock(line: Line) -> None:
    offset = line.link.clock.offset
    assert offset is not None
    assert abs(offset) < timedelta(seconds=5)
    assert line.link.route == Route()


def test_a_named_proxy_is_used_and_named_in_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is asked for the exchange's name, which nobody else here can resolve."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        address = f"127.0.0.1:{proxy.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", f"http://{address}")
        authority = TransportAuthority.create("danube", now())
        party = caller(authority)
        link = ExchangeLink(
            "exchange.example.org:7443",
            authority=authority.certificate_pem,
            key=party.key,
            certificate=party.certificate,
        )
        with pytest.raises(LinkFault, match="does not answer") as caught:
            link.fetch(LARGE, 0.9)
        link.close()
    assert asked[0].startswith(b"CONNECT exchange.example.org:7443 ")
    assert f"through the proxy {address}, which the variable https_proxy" in caught.value.why


def test_a_proxy_does_not_get_calls_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    line = Line()
    line.close()
