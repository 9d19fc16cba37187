"""A copy of a node's folder uses the node's certificate: it renews nothing, and slows nothing down.

The copy has the node's keys and certificate, and not the secret of the running process.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node

from governance.runtime.database import open_database
from keys.certificates import TransportAuthority, new_transport_key, public_pem
from keys.renewal import renewal_proof, serial_of
from protocols.proto.exchange_pb2 import FetchRequest, RelayRequest, RenewReply, RenewRequest
from protocols.wire.channel import ExchangeLink, LinkFault
from protocols.wire.flower_frame import SESSION_BYTES, SESSION_ENDED
from protocols.wire.request_parts import parts_of
from server.exchange import fencing
from server.exchange.fencing import Fence
from server.exchange.relay import Relay
from server.membership.acting_sessions import ActingSessions
from server.membership.certificates import SETTLING
from server.state.tables import MIGRATIONS
from tests.support.enrolling import enrolment_of
from tests.support.exchange_process import HEARTBEAT, SESSION, exchange_process
from tests.support.exchange_server import (
    Caller,
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)
from tests.support.flood import flood, latency
from tests.support.hostile_callers import begun, channels

NODE_ID, KEY = 101, b"key of AT"
FILE = "draft"


class Coordinator:
    """An exchange with the register and the fence of a coordinator; a test moves its clock."""

    def __init__(self, folder: Path) -> None:
        self.ahead, self.folder = timedelta(0), folder
        self.authority = TransportAuthority.create("danube", now())
        self.disputes: list[str] = []
        self.start()

    def start(self) -> None:
        engine = open_database(self.folder / "state.db", MIGRATIONS)
        fence = Fence(ActingSessions(engine), on_dispute=self.disputes.append)
        relay = Relay(ScriptedSuperLink().forward, fence=fence, heartbeat=0, long_poll=0)
        self.enrolment = enrolment_of(engine, self.authority)
        self.exchange = OpenExchange(
            self.authority,
            relay,
            enrolments=self.enrolment,
            documents=ServedFiles({FILE: b"content"}),
            clock=self.clock,
        )
        self.exchange.open_session("AT", NODE_ID, KEY)

    def clock(self) -> datetime:
        return now() + self.ahead

    def settle(self) -> None:
        """Let the time pass after which a replaced certificate ends."""
        self.ahead += SETTLING + timedelta(seconds=1)


class Process:
    """A process that runs a node's folder, with a secret of its own."""

    def __init__(self, coordinator: Coordinator, who: Caller, number: int) -> None:
        self.coordinator, self.who, self.number = coordinator, who, number
        self.session = os.urandom(SESSION_BYTES)
        self.link = coordinator.exchange.link(who)
        self.link.session = self.session

    def sign_in(self) -> int:
        body = ActivateNodeRequest(public_key=KEY).SerializeToString()
        return self._relay("ActivateNode", body, incarnation=self.number)

    def beat(self) -> int:
        return self._relay("SendNodeHeartbeat", HEARTBEAT)

    def _relay(self, method: str, body: bytes, **more: Any) -> int:
        request = RelayRequest(method=method, body=body, session=self.session, **more)
        return self.link.relay(request, 5.0).status

    def renew(self) -> RenewReply:
        key = new_transport_key()
        proof = renewal_proof(key, serial_of(self.who.certificate))
        reply = self.link.renew(RenewRequest(public_key=public_pem(key), proof=proof))
        self.who = Caller(key, reply.certificate)
        authority = self.coordinator.authority.certificate_pem
        self.link.present(authority=authority, key=key, certificate=reply.certificate)
        return reply


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    opened = Coordinator(tmp_path)
    yield opened
    opened.exchange.close()


def test_a_copy_beside_the_node_renews_nothing(coordinator: Coordinator) -> None:
    who = caller(coordinator.authority, "AT", lifetime=timedelta(days=90))
    original, copy = Process(coordinator, who, 1), Process(coordinator, who, 2)
    assert original.sign_in() == 200
    with suppress(LinkFault):
        copy.renew()
        copy.link.fetch(FILE)
    coordinator.settle()
    assert original.beat() == 200
    assert original.link.fetch(FILE) == b"content"


def test_a_node_that_was_cut_off_keeps_its_certificate(
    coordinator: Coordinator, monkeypatch
) -> None:
    monkeypatch.setattr(fencing, "LIVE_SECONDS", 0.0)
    who = caller(coordinator.authority, "AT", lifetime=timedelta(days=90))
    original, copy = Process(coordinator, who, 1), Process(coordinator, who, 2)
    assert original.sign_in() == 200
    assert copy.sign_in() == 200
    copy.renew()
    copy.link.fetch(FILE)
    coordinator.settle()
    assert original.sign_in() == 425
    assert original.sign_in() == 200
    assert original.beat() == 200


def copies(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Use the certificate for as many connections, calls and sign-ins as the exchange takes."""
    opened = channels(port, authority, who, 24)

    def never() -> Iterator[bytes]:
        stop.wait()
        yield b""

    def sign_in() -> Iterator[bytes]:
        request = RelayRequest(
            method="ActivateNode",
            body=ActivateNodeRequest(public_key=b"key of AT").SerializeToString(),
            session=os.urandom(SESSION_BYTES),
            incarnation=9,
        )
        return (part.SerializeToString() for part in parts_of(request.SerializeToString()))

    while not stop.is_set():
        for channel in opened:
            begun(channel, "Fetch", never())
            begun(channel, "Relay", sign_in())
        for channel in opened[:4]:
            begun(channel, "Fetch", iter([FetchRequest(path=FILE).SerializeToString()])).exception()
        ready.set()


def test_the_node_goes_on_beside_a_copy_that_floods(tmp_path: Path) -> None:
    with exchange_process() as victim, closing(victim.link("node")) as link:
        link.session = SESSION

        def work() -> None:
            beat = RelayRequest(method="SendNodeHeartbeat", body=HEARTBEAT, session=SESSION)
            assert link.relay(beat, 5.0).status == 200
            assert link.fetch(FILE, 5.0) == b"content"

        quiet = latency(work, 40)
        with flood(copies, victim.port, victim.authority, victim.parties["node"]):
            beside = latency(work, 100)
            again = RelayRequest(
                method="ActivateNode",
                body=ActivateNodeRequest(public_key=KEY).SerializeToString(),
                session=SESSION,
                incarnation=1,
            )
            assert link.relay(again, 5.0).status == 200
        assert beside.is_at_most(quiet)
