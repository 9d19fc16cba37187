"""A copy of a node's folder uses the node's certificate: it renews nothing and slows nothing down.

The copy has the node's keys and certificate, and not the secret of the running process. It may
state any session, or none.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest

from governance.runtime.database import open_database
from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from keys.renewal import renewal_proof, serial_of
from protocols.proto.exchange_pb2 import FetchRequest, RelayReply, RelayRequest, RenewRequest
from protocols.wire.channel import SESSION_KEY, ExchangeLink, LinkFault
from protocols.wire.flower_frame import (
    IDENTITY_IN_USE,
    SESSION_BYTES,
    SESSION_ENDED,
    SIGNED_IN_TOO_OFTEN,
    STILL_CONNECTED,
)
from protocols.wire.request_parts import parts_of
from server.exchange import fencing
from server.exchange.fencing import Fence, session_key
from server.exchange.holders import OF_MEMBER, OF_OTHERS
from server.exchange.relay import Relay
from server.exchange.relay_session import SIGN_INS_AT_ONCE
from server.membership.acting_sessions import ActingSessions
from server.membership.certificates import SETTLING
from server.state.tables import MIGRATIONS
from tests.support.enrolling import enrolment_of
from tests.support.exchange_process import FILE, HEARTBEAT, NODE_ID, SESSION, exchange_process
from tests.support.exchange_server import (
    Caller,
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)
from tests.support.flood import Attack, flood, goes_on, latency
from tests.support.hostile_callers import begun, channels, from_elsewhere
from tests.support.waiting import WAIT_SECONDS, wait_until

FETCHES = "/pratique.exchange.v1.Exchange/Fetch"
KEY, ELSEWHERE = b"key of AT", "127.1.0.1"
SIGN_IN = ActivateNodeRequest(public_key=KEY).SerializeToString()
SIGN_OFF = DeactivateNodeRequest(node_id=NODE_ID).SerializeToString()
OK = 200
TIMES = 40
SHORT, BEAT = 0.05, 1.0
"""How long a flood waits for an answer, and the node between two heartbeats, in seconds."""


class Coordinator:
    """A coordinator's exchange with its fence and its register; a test moves the clock."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.ahead = TransportAuthority.create("danube", now()), timedelta(0)
        self._folder, self._disputes = folder, list[str]()
        self.start()

    def start(self) -> None:
        """Open the exchange on the state that is stored."""
        engine = open_database(self._folder / "state.db", MIGRATIONS)
        fence = Fence(ActingSessions(engine), on_dispute=self._disputes.append)
        relay = Relay(ScriptedSuperLink().forward, fence=fence, heartbeat=0, long_poll=0)
        self.enrolment = enrolment_of(engine, self.authority)
        self.exchange = OpenExchange(
            self.authority,
            relay,
            enrolments=self.enrolment,
            documents=ServedFiles({FILE: b"content"}),
            clock=lambda: now() + self.ahead,
        )
        self.exchange.open_session("AT", NODE_ID, KEY)

    def settle(self) -> None:
        """Let the time pass after which a replaced certificate ends."""
        self.ahead += SETTLING + timedelta(seconds=1)

    @property
    def warned(self) -> bool:
        """Whether the coordinator shows that two machines have the identity."""
        return self.exchange.relay.disputes() == ("AT",)


class Process:
    """A process that runs a node's folder, with a secret of its own."""

    def __init__(
        self, exchange: OpenExchange, who: Caller, before: "Process | None" = None
    ) -> None:
        self._exchange, self._who = exchange, who
        self.number: int = before.number + 1 if before else 1
        self.session: bytes = os.urandom(SESSION_BYTES)
        self._former = session_key(before.session) if before else b""
        self.link = exchange.link(who)
        self.link.session = self.session

    def sign_in(self) -> int:
        more = {"incarnation": self.number, "former": self._former}
        return self._relay("ActivateNode", SIGN_IN, **more)

    def sign_off(self) -> int:
        return self._relay("DeactivateNode", SIGN_OFF)

    def beat(self) -> int:
        return self._relay("SendNodeHeartbeat", HEARTBEAT)

    def _relay(self, method: str, body: bytes, **more: Any) -> int:
        request = RelayRequest(method=method, body=body, session=self.session, **more)
        return self.link.relay(request, 5.0).status

    def renew(self) -> None:
        """Renew the certificate, and use the new one."""
        key = new_transport_key()
        proof = renewal_proof(key, serial_of(self._who.certificate))
        reply = self.link.renew(RenewRequest(public_key=public_pem(key), proof=proof))
        self._who = Caller(key, reply.certificate)
        self.link.present(
            authority=self._exchange.authority.certificate_pem,
            key=key,
            certificate=reply.certificate,
        )
        assert self.link.fetch(FILE) == b"content"

    def restarted(self) -> "Process":
        """End this process, and start the next one from its folder."""
        self.link.close()
        return Process(self._exchange, self._who, self)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    opened = Coordinator(tmp_path)
    yield opened
    opened.exchange.close()


@pytest.fixture
def node(coordinator: Coordinator) -> Process:
    """A node that is signed in."""
    who = caller(coordinator.authority, "AT", lifetime=timedelta(days=90))
    process = Process(coordinator.exchange, who)
    assert process.sign_in() == OK
    return process


def copied(node: Process) -> Process:
    """Start a copy of the folder of a running node."""
    return Process(node._exchange, node._who, node)


@pytest.mark.parametrize("stated", [bytes(SESSION_BYTES), b"", b"own"])
def test_a_copy_beside_the_node_renews_nothing(
    coordinator: Coordinator, node: Process, stated: bytes
) -> None:
    copy = copied(node)
    copy.link.session = stated if stated != b"own" else copy.session
    assert node.beat() == OK
    with pytest.raises(LinkFault, match="does not act for the node"):
        copy.renew()
    assert copy.sign_in() == STILL_CONNECTED
    with pytest.raises(LinkFault, match="does not act for the node"):
        copy.renew()
    coordinator.settle()
    assert node.beat() == OK
    node.renew()  # it acts, so it may
    coordinator.settle()
    assert node.beat() == OK
    with pytest.raises(LinkFault, match="renewed, and the new one is in use"):
        copy.link.fetch(FILE)


def test_a_node_that_was_cut_off_gets_place_and_certificate_back_from_the_copy(
    coordinator: Coordinator, node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(node)
    monkeypatch.setattr(fencing, "LIVE_SECONDS", 0.0)  # the node's link is down
    assert copy.sign_in() == OK
    copy.renew()
    copy = copy.restarted()  # so that the node is not the start just before it
    assert copy.sign_in() == OK
    coordinator.settle()
    assert node.sign_in() == STILL_CONNECTED
    assert node.sign_in() == OK
    assert node.link.fetch(FILE) == b"content"
    assert copy.beat() == SESSION_ENDED
    with pytest.raises(LinkFault, match="does not act for the node"):
        copy.renew()
    assert coordinator.warned
    again = node.restarted()
    assert again.sign_in() == OK
    assert again.link.fetch(FILE) == b"content"
    assert len(coordinator.enrolment.revoke("AT", Role.NODE, now())) == 2
    for process in (again, copy):
        with pytest.raises(LinkFault, match="revoked"):
            process.link.fetch(FILE)


@contextmanager
def calls_that_never_end(process: Process) -> Iterator[None]:
    """Keep as many calls open as a session that acted before may have."""
    port, authority = process._exchange.port, process._exchange.authority.certificate_pem
    stop, stated = threading.Event(), ((SESSION_KEY, process.session),)

    def never() -> Iterator[bytes]:
        stop.wait()
        yield b""

    (channel,) = channels(port, authority, process._who, 1)
    call = channel.stream_unary(FETCHES, None, None)
    held: list[Any] = [call.future(never(), metadata=stated) for _ in range(OF_OTHERS + 1)]
    try:
        wait_until(lambda: sum(each.done() for each in held) == 1)  # one is too many
        yield
        assert sum(each.done() for each in held) == 1
    finally:
        stop.set()
        for each in held:
            each.cancel()
        channel.close()


def test_copies_that_sign_in_and_call_without_end_give_the_place_back_at_the_second_call(
    coordinator: Coordinator, node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's link was down. Two copies acted; they use up what sessions share, and return."""
    copy = copied(node)
    monkeypatch.setattr(fencing, "PROOF_SECONDS", 3600.0)
    with monkeypatch.context() as down:
        down.setattr(fencing, "LIVE_SECONDS", 0.0)
        assert copy.sign_in() == OK
        former, copy = copy, Process(coordinator.exchange, node._who, copy)
        assert copy.sign_in() == OK
    with calls_that_never_end(former):
        for each in (copied(copy), copy):
            answers = [each.sign_in() for _ in range(2 * SIGN_INS_AT_ONCE)]
            assert SIGNED_IN_TOO_OFTEN in answers
        assert not coordinator.warned
        assert node.sign_in() == STILL_CONNECTED
        assert copy.sign_in() == SIGNED_IN_TOO_OFTEN
        assert node.sign_in() == OK
        assert node.beat() == OK
    assert coordinator.warned
    assert coordinator._disputes == ["AT"]
    assert former.beat() == copy.beat() == SESSION_ENDED


def test_a_copy_that_starts_again_does_not_take_the_place_of_a_node_that_restarts(
    coordinator: Coordinator, node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(node)
    monkeypatch.setattr(fencing, "PROOF_SECONDS", 0.0)
    assert copy.sign_in() == STILL_CONNECTED
    assert node.beat() == OK
    assert copy.sign_in() == IDENTITY_IN_USE
    assert node.sign_off() == OK
    for _ in range(3):
        copy = copy.restarted()
        assert copy.sign_in() == STILL_CONNECTED
        assert copy.beat() == SESSION_ENDED
    node = node.restarted()
    assert node.sign_in() == OK
    assert node.beat() == OK
    assert coordinator.warned


def test_in_a_dispute_no_renewal_locks_the_other_machine_out(
    coordinator: Coordinator, node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy acts once the node has been silent; both have a certificate until a revocation."""
    copy = copied(node)
    monkeypatch.setattr(fencing, "PROOF_SECONDS", 0.0)
    assert copy.sign_in() == STILL_CONNECTED
    assert node.beat() == OK
    assert coordinator.warned
    for name in ("LIVE_SECONDS", "KEPT_FREE_SECONDS"):
        monkeypatch.setattr(fencing, name, 0.0)
    again = node.restarted()
    assert copy.sign_in() == OK
    copy.renew()
    coordinator.settle()
    assert again.sign_in() == OK
    assert again.link.fetch(FILE) == b"content"


def test_a_restarted_coordinator_renews_and_a_node_that_states_no_session_does_not(
    coordinator: Coordinator, node: Process
) -> None:
    coordinator.exchange.close()
    coordinator.start()
    node._exchange = coordinator.exchange
    node.link = coordinator.exchange.link(node._who)
    node.link.session = node.session
    node.renew()
    node.link.session = b""
    assert node.beat() == OK
    with pytest.raises(LinkFault, match="does not act for the node"):
        node.renew()


def calls(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Keep as many unfinished calls open as the exchange takes."""
    opened, held = channels(from_elsewhere(port, ELSEWHERE), authority, who, 4), list[Any]()

    def never() -> Iterator[bytes]:
        stop.wait()
        yield b""

    while not stop.wait(SHORT):
        held = [call for call in held if not call.done()]
        if held:
            ready.set()
        names = ("Fetch", "Relay", "Renew", "Fetch")
        held += [begun(*pair, never()) for pair in zip(opened, names, strict=True)]


def connections(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Keep as many connections open as the exchange takes, with many calls over each."""
    opened = channels(from_elsewhere(port, ELSEWHERE), authority, who, 2 * OF_MEMBER)
    for turn in itertools.count():
        made = [begun(channel, "Fetch", iter([FETCH])) for channel in opened]
        with suppress(grpc.FutureTimeoutError):
            made[turn % len(made)].exception(SHORT)
        if turn == OF_MEMBER:
            ready.set()
        if stop.is_set():
            return


def sign_ins(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Sign in again and again, each time in a new session, as a program that is started again."""
    (channel,) = channels(from_elsewhere(port, ELSEWHERE), authority, who, 1)
    for turn in itertools.count():
        begun(channel, "Relay", signing_in()).exception()
        if turn == 2 * SIGN_INS_AT_ONCE:
            ready.set()
        if stop.is_set():
            return


FETCH = FetchRequest(path=FILE).SerializeToString()


def signing_in() -> Iterator[bytes]:
    session = os.urandom(SESSION_BYTES)
    request = RelayRequest(method="ActivateNode", body=SIGN_IN, session=session, incarnation=9)
    return (part.SerializeToString() for part in parts_of(request.SerializeToString()))


@pytest.mark.parametrize(
    "attack",
    [calls, *(pytest.param(each, marks=pytest.mark.slow) for each in (connections, sign_ins))],
)
def test_the_node_works_and_restarts_beside_a_copy_that_floods(
    attack: Attack[int, bytes, Caller],
) -> None:
    with exchange_process() as victim, ExitStack() as open_:
        link = open_.enter_context(closing(victim.link("node")))
        with connected(link):
            quiet = latency(lambda: works(link), TIMES)
            new = latency(lambda: connects_and_signs_in(victim.link), 8)
            node = victim.parties["node"]
            open_.enter_context(flood(attack, victim.port, victim.authority, node))
            assert goes_on(lambda: works(link), TIMES, quiet)
            assert goes_on(lambda: connects_and_signs_in(victim.link), 8, new)
            if attack is sign_ins:
                wait_until(lambda: beats(link))  # it is noticed that there is a copy
        assert called(link, "DeactivateNode", SIGN_OFF).status == OK
        connects_and_signs_in(victim.link, os.urandom(SESSION_BYTES), 2)


@contextmanager
def connected(link: ExchangeLink) -> Iterator[None]:
    """Make the heartbeats of a node while the block runs; each must be answered."""
    link.session, ended, faults = SESSION, threading.Event(), list[Exception]()

    def beat() -> None:
        while not ended.wait(BEAT) and not faults:
            try:
                beats(link)
            except Exception as fault:  # noqa: BLE001 (reported below)
                faults.append(fault)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(WAIT_SECONDS)
    assert not faults


def called(link: ExchangeLink, method: str, body: bytes, **more: Any) -> RelayReply:
    """Make a call of the node in its present session."""
    more.setdefault("session", SESSION)
    return link.relay(RelayRequest(method=method, body=body, **more), 5.0)


def beats(link: ExchangeLink) -> bool:
    """Make one heartbeat; return whether another machine has the identity."""
    reply = called(link, "SendNodeHeartbeat", HEARTBEAT)
    assert reply.status == OK
    return reply.disputed


def works(link: ExchangeLink) -> None:
    """Make the calls of a node that is connected."""
    beats(link)
    assert link.fetch(FILE, 5.0) == b"content"


def connects_and_signs_in(
    dial: Callable[[str], ExchangeLink], session: bytes = SESSION, number: int = 1
) -> None:
    """Connect again, as after a lost link or, in another session, after a restart."""
    more = {"session": session, "incarnation": number, "former": session_key(SESSION)}
    with closing(dial("node")) as link:
        link.session = session
        assert called(link, "ActivateNode", SIGN_IN, **more).status == OK
