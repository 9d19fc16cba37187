"""Certificate renewals, revocations and a new authority over real mutual TLS, without restarts."""

import itertools
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node

from governance.runtime.database import open_database
from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from keys.renewal import renewal_proof, serial_of
from keys.succession import BEFORE_THE_END, NOTICE, OVERLAP
from protocols.proto import exchange_pb2, exchange_pb2_grpc
from protocols.proto.exchange_pb2 import RelayRequest, RenewReply, RenewRequest
from protocols.wire.channel import ExchangeLink, LinkFault
from server.exchange.relay import Relay
from server.exchange.service import (
    LARGEST_REQUEST,
    MAY_CALL,
    ExchangeService,
)
from server.exchange.serving import serve_exchange
from server.membership.certificates import MAX_RENEWALS, SETTLING
from server.membership.transport_authority import ExchangeTransport
from server.state.tables import MIGRATIONS
from tests.support.enrolling import Noted, enrolment_of
from tests.support.exchange_server import (
    LOOPBACK,
    ROOM,
    Caller,
    LoopThread,
    OpenFence,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    incoming,
    inner_socket,
    now,
    tree,
)
from tests.support.keystore import fast_store
from tests.support.waiting import WAIT_SECONDS, wait_until

SEAT, DAY, YEAR = 101, timedelta(days=1), timedelta(days=365)
FILE = "metadata/1.root.json"
LONG_POLL = 60.0
"""Seconds within which a cancelled call must end: far less than a long poll."""


class Exchange:
    """An exchange with its own transport, a register, and a clock that a test can move."""

    def __init__(self, folder: Path, begun: datetime) -> None:
        self.ahead, self.noted = timedelta(0), Noted()
        store = fast_store(folder / "keys")
        self.transport = ExchangeTransport.create(
            folder, (LOOPBACK, "localhost"), store, federation="danube", now=begun
        )
        self.enrolment = enrolment_of(
            open_database(folder / "state.db", MIGRATIONS), self.transport, noted=self.noted
        )
        self.superlink, self.refusals = ScriptedSuperLink(), list[tuple[str, str]]()
        relay = Relay(self.superlink.forward, fence=OpenFence(), heartbeat=0, long_poll=LONG_POLL)
        relay.open_session("AT", SEAT, b"key of AT")
        self.relay, self.thread = relay, LoopThread()
        service = ExchangeService(
            register=self.enrolment.register,
            enrolments=self.enrolment,
            documents=ServedFiles({FILE: b"root"}),
            relay=relay,
            clock=self.clock,
            on_refusal=lambda peer, call, _: self.refusals.append((peer.country, call)),
        )
        self._server, self.port = self.thread.run(
            serve_exchange(
                service,
                f"{LOOPBACK}:0",
                credentials=self.transport,
                clock=self.clock,
                room=ROOM,
                inner=inner_socket(),
            )
        )

    def clock(self) -> datetime:
        return now() + self.ahead

    def caller(self, role: Role = Role.NODE, country: str = "AT") -> Caller:
        return caller(self.transport.in_force(now()), country, role, lifetime=90 * DAY)

    def link(self, who: Caller, authority: bytes | None = None) -> ExchangeLink:
        return ExchangeLink(
            f"{LOOPBACK}:{self.port}",
            authority=authority or self.transport.trusted(now()),
            key=who.key,
            certificate=who.certificate,
        )

    def close(self) -> None:
        self.thread.run(self._server.stop(None))
        self.thread.close()


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    opened = Exchange(tmp_path, now() - DAY)
    yield opened
    opened.close()


def renewal_request(who: Caller, key: bytes) -> RenewRequest:
    proof = renewal_proof(key, serial_of(who.certificate))
    return RenewRequest(public_key=public_pem(key), proof=proof)


def renew(link: ExchangeLink, who: Caller) -> tuple[Caller, RenewReply]:
    key = new_transport_key()
    reply = link.renew(renewal_request(who, key))
    return Caller(key, reply.certificate), reply


def present(link: ExchangeLink, who: Caller, authority: bytes) -> None:
    link.present(authority=authority, key=who.key, certificate=who.certificate)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(LinkFault) as caught:
        call()
    return caught.value.why


@pytest.mark.parametrize("role", [Role.NODE, Role.OFFICER])
def test_a_link_uses_the_renewed_certificate_and_the_old_one_is_refused(
    exchange: Exchange, role: Role
) -> None:
    who = exchange.caller(role)
    link, left_open = exchange.link(who), exchange.link(who)
    assert left_open.fetch(FILE) == b"root"
    renewed, reply = renew(link, who)
    present(link, renewed, reply.authority)
    assert link.fetch(FILE) == b"root"
    assert left_open.fetch(FILE) == b"root"
    exchange.ahead = SETTLING + timedelta(seconds=1)
    assert "renewed" in refusal(lambda: left_open.fetch(FILE))
    assert link.fetch(FILE) == b"root"
    for party_link in (link, left_open):
        party_link.close()


def test_only_nodes_and_officers_renew_and_only_their_own_certificate(exchange: Exchange) -> None:
    guest, node = exchange.caller(Role.ENROLMENT), exchange.caller()
    other = exchange.caller(country="BE")
    links = {who: exchange.link(who) for who in (guest, node, other)}
    assert "may not call Renew" in refusal(lambda: renew(links[guest], guest))
    assert exchange.refusals == [("AT", "Renew")]
    captured = renewal_request(node, new_transport_key())
    assert "holder of the new key" in refusal(lambda: links[other].renew(captured))
    assert links[node].renew(captured) == links[node].renew(captured)
    renewed, _ = renew(links[other], other)
    peer = exchange.enrolment.register.peer(renewed.certificate, "Fetch", now())
    assert (peer.country, peer.role) == ("BE", Role.NODE)
    for link in links.values():
        link.close()


def test_a_revoked_or_ended_certificate_is_not_renewed(exchange: Exchange) -> None:
    who, gone = exchange.caller(), exchange.caller(country="BE")
    link, ended = exchange.link(who), exchange.link(gone)
    assert link.fetch(FILE) == ended.fetch(FILE) == b"root"
    revoke(exchange, gone)
    assert "revoked" in refusal(lambda: renew(ended, gone))
    exchange.ahead = 91 * DAY
    assert "expired" in refusal(lambda: renew(link, who))
    for party_link in (link, ended):
        party_link.close()


def test_too_large_and_too_many_requests_are_refused(exchange: Exchange) -> None:
    who = exchange.caller()
    link = exchange.link(who)
    large = renewal_request(who, new_transport_key())
    large.public_key += b"#" * LARGEST_REQUEST["Renew"]
    assert "at most" in refusal(lambda: link.renew(large))
    for _ in range(MAX_RENEWALS):
        who, reply = renew(link, who)
        present(link, who, reply.authority)
    assert "times within a day" in refusal(lambda: renew(link, who))
    link.close()


def test_a_renewal_by_a_thief_is_refused_and_reported(exchange: Exchange) -> None:
    who = exchange.caller()
    link, thief = exchange.link(who), exchange.link(who)
    renew(link, who)
    with pytest.raises(LinkFault, match="already renewed") as caught:
        renew(thief, who)
    assert "enrol" in caught.value.why
    assert [
        (dispute.country, dispute.role) for dispute in exchange.enrolment.register.disputes()
    ] == [("AT", "node")]
    for party_link in (link, thief):
        party_link.close()


def revoke(exchange: Exchange, who: Caller) -> None:
    """Revoke one certificate, as the enrolment service does with all of a party's."""
    register = exchange.enrolment.register
    with register._engine.begin() as connection:
        register.revoke(connection, [serial_of(who.certificate)])
    register.reload()


class LongPoll:
    """A node's call that waits for a message."""

    def __init__(self, exchange: Exchange, link: ExchangeLink) -> None:
        body = PullMessagesRequest(node=Node(node_id=SEAT)).SerializeToString()
        self._link, self._request = link, RelayRequest(method="PullMessages", body=body)
        self.reply: object = None
        before = len(exchange.superlink.calls)
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        wait_until(lambda: len(exchange.superlink.calls) > before)

    def _call(self) -> None:
        try:
            self.reply = self._link.relay(self._request, LONG_POLL)
        except LinkFault as fault:
            self.reply = fault

    def end(self) -> object:
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "the call goes on"
        return self.reply


def test_a_revocation_ends_the_long_poll_of_this_party_only(exchange: Exchange) -> None:
    who, other = exchange.caller(), exchange.caller(country="BE")
    exchange.thread.run(seated(exchange, "BE"))
    link, spared = exchange.link(who), exchange.link(other)
    waiting = LongPoll(exchange, link)
    revoke(exchange, other)
    assert waiting.reply is None
    revoke(exchange, who)
    fault = waiting.end()
    assert isinstance(fault, LinkFault)
    assert "revoked during the call" in fault.why
    asked_before = exchange.superlink.methods.count("PullMessages")
    assert "revoked" in refusal(lambda: link.fetch(FILE))
    exchange.thread.run(announced(exchange))
    time.sleep(0.2)  # the exchange looks for no more messages for the revoked node
    assert exchange.superlink.methods.count("PullMessages") == asked_before
    for one in (link, spared):
        one.close()


async def seated(exchange: Exchange, country: str) -> None:
    exchange.relay.open_session(country, SEAT + 1, b"key")


def test_no_message_is_delivered_if_the_certificate_ends_during_a_long_poll(
    exchange: Exchange,
) -> None:
    link = exchange.link(exchange.caller())
    waiting = LongPoll(exchange, link)
    exchange.ahead = 91 * DAY
    exchange.superlink.will("PullMessages", incoming(tree("secret")))
    exchange.thread.run(announced(exchange))
    fault = waiting.end()
    assert isinstance(fault, LinkFault)
    assert "expired" in fault.why
    link.close()


async def announced(exchange: Exchange) -> None:
    exchange.relay.announce(["AT"])


def test_no_call_is_lost_while_certificates_change(exchange: Exchange) -> None:
    """A long poll goes on over the old channel while the next calls use the new one."""
    who = exchange.caller()
    link = exchange.link(who)
    waiting = LongPoll(exchange, link)
    stop, faults = threading.Event(), list[Exception]()

    def busy() -> None:
        while not stop.is_set():
            try:
                assert link.fetch(FILE) == b"root"
            except Exception as fault:  # noqa: BLE001 (reported below)
                faults.append(fault)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(MAX_RENEWALS):
        who, reply = renew(link, who)
        present(link, who, reply.authority)
        link.fetch(FILE)
    exchange.superlink.will("PullMessages", incoming(tree("for AT")))
    exchange.thread.run(announced(exchange))
    assert not isinstance(waiting.end(), Exception)
    stop.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert faults == []
    assert link._open == {link._wire}  # the replaced channels are closed
    link.close()


def test_a_closed_link_stays_closed(exchange: Exchange) -> None:
    who = exchange.caller()
    link = exchange.link(who)
    renewed, reply = renew(link, who)
    link.close()
    present(link, renewed, reply.authority)
    with pytest.raises(LinkFault, match="closed"):
        link.fetch(FILE)


def test_the_certificate_of_the_exchange_changes_while_links_are_open(exchange: Exchange) -> None:
    link = exchange.link(exchange.caller())
    waiting = LongPoll(exchange, link)
    before = served(exchange)
    exchange.transport._renew_certificate(now())
    assert link.fetch(FILE) == b"root"
    assert served(exchange) not in (before, b"")
    exchange.superlink.will("PullMessages", incoming(tree("for AT")))
    exchange.thread.run(announced(exchange))
    assert not isinstance(waiting.end(), Exception)
    link.close()


def served(exchange: Exchange) -> bytes:
    """Return the certificate that the exchange presents to a new connection."""
    who = exchange.caller()
    context = ssl.create_default_context(cadata=exchange.transport.trusted(now()).decode())
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(who.key + who.certificate)
        pair.flush()
        context.load_cert_chain(pair.name)
    with (
        socket.create_connection((LOOPBACK, exchange.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""


PHASES = {"announced": DAY, "taken over": NOTICE + DAY, "retired": NOTICE + OVERLAP + DAY}
"""How long ago the second authority was made."""


@pytest.fixture(params=PHASES)
def phase(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Exchange]]:
    """Return an exchange whose second authority was made that long ago."""
    created = now() - PHASES[request.param]
    begun = created + BEFORE_THE_END - 3650 * DAY
    opened = Exchange(tmp_path, begun)
    OLDEST[opened] = opened.transport.in_force(begun)
    opened.transport.renew_due(created)
    opened.transport.renew_due(now())
    yield request.param, opened
    opened.close()


OLDEST: dict[Exchange, TransportAuthority] = {}


def test_a_party_connects_if_its_authorities_and_certificate_fit_the_phase(
    phase: tuple[str, Exchange],
) -> None:
    """Each party trusts some authorities and has a certificate of one authority."""
    name, exchange = phase
    old, new = OLDEST[exchange], exchange.transport.line.generations[-1].authority
    believed = {
        "old": old.certificate_pem,
        "both": old.certificate_pem + new.certificate_pem,
        "new": new.certificate_pem,
    }

    def hears(pair: tuple[str, str]) -> bool:
        what, issuer = pair
        link = exchange.link(caller({"old": old, "new": new}[issuer]), believed[what])
        try:
            return link.fetch(FILE, 5) == b"root"
        except LinkFault:
            return False
        finally:
            link.close()

    pairs = list(itertools.product(believed, ("old", "new")))
    with ThreadPoolExecutor(len(pairs)) as pool:
        accepted_pairs = {
            pair for pair, yes in zip(pairs, pool.map(hears, pairs), strict=True) if yes
        }
    shown_old = {(what, issuer) for what in ("old", "both") for issuer in ("old", "new")}
    shown_new = {(what, issuer) for what in ("new", "both") for issuer in ("old", "new")}
    assert (
        accepted_pairs
        == {
            "announced": shown_old,
            "taken over": shown_new,
            "retired": {(what, issuer) for what, issuer in shown_new if issuer == "new"},
        }[name]
    )


def replaced(exchange: Exchange, who: Caller) -> None:
    link = exchange.link(who)
    renewed, reply = renew(link, who)
    present(link, renewed, reply.authority)
    link.fetch(FILE)
    link.close()
    exchange.ahead = SETTLING + timedelta(seconds=1)


def ended(exchange: Exchange, _: Caller) -> None:
    exchange.ahead = 91 * DAY


WAYS = [
    (role, loses)
    for role in (Role.NODE, Role.OFFICER, Role.ENROLMENT)
    for loses in (replaced, revoke, ended)
    if loses is not replaced or role in MAY_CALL["Renew"]
]


@pytest.mark.parametrize(("role", "loses"), WAYS)
def test_an_invalid_certificate_allows_no_call_on_an_open_connection(
    exchange: Exchange, role: Role, loses: Callable[[Exchange, Caller], None]
) -> None:
    who = exchange.caller(role)
    credentials = grpc.ssl_channel_credentials(
        exchange.transport.trusted(now()), who.key, who.certificate
    )
    with grpc.secure_channel(f"{LOOPBACK}:{exchange.port}", credentials) as channel:
        stub = exchange_pb2_grpc.ExchangeStub(channel)
        assert grpc.StatusCode.UNAUTHENTICATED not in codes(stub)
        loses(exchange, who)
        assert set(codes(stub)) == {grpc.StatusCode.UNAUTHENTICATED}


def codes(stub: exchange_pb2_grpc.ExchangeStub) -> list[grpc.StatusCode]:
    """Make each call of the service with an empty request; return the status code of each."""
    ends = []
    for method in exchange_pb2.DESCRIPTOR.services_by_name["Exchange"].methods:
        request = getattr(exchange_pb2, method.input_type.name)()
        try:
            getattr(stub, method.name)(iter([request]), timeout=10)
            ends.append(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            ends.append(error.code())
    return ends
