"""The exchange on its port: which role may make which call, tested over real mutual TLS."""

import contextlib
import hashlib
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node

from governance.errors import DocumentFault
from governance.runtime.database import open_database
from keys.certificates import Role, TransportAuthority
from protocols.errors import ProtocolFault
from protocols.proto import exchange_pb2, exchange_pb2_grpc
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest, RelayRequest, SubmitRequest
from protocols.wire.channel import MAX_MESSAGE, ExchangeLink, LinkFault, sent_as
from protocols.wire.flower_frame import FLEET_CALLS, MAX_FRAME, NONCE_BYTES, OBJECT_CALLS
from protocols.wire.flower_object import pack_frame
from protocols.wire.invitation import Invitation
from server.errors import CoordinatorFault
from server.exchange.relay import Relay
from server.exchange.service import MAY_CALL, ExchangeService
from server.exchange.serving import serve_exchange
from server.state.tables import MIGRATIONS
from tests.support.certificates import forged, uri
from tests.support.enrolling import Applicant, enrolment_of, officer_statement
from tests.support.exchange_server import (
    LOOPBACK,
    ROOM,
    Caller,
    FixedCredentials,
    OpenExchange,
    OpenFence,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    incoming,
    inner_socket,
    now,
    tree,
)
from tests.support.relay_harness import push_of
from tests.support.waiting import wait_until

AT, BE = 101, 202
DAY = timedelta(days=1)
CALLS = sorted(MAY_CALL)


class Port:
    """An exchange with everything behind it, and a clock that a test can move."""

    def __init__(self, folder: Path) -> None:
        self.authority = TransportAuthority.create("danube", now() - 2 * DAY)
        self.ahead = timedelta(0)
        self.superlink, self.documents = (
            ScriptedSuperLink(),
            ServedFiles({"metadata/1.root.json": b"root"}),
        )
        self.enrolment = enrolment_of(
            open_database(folder / "state.db", MIGRATIONS), self.authority
        )
        relay = Relay(self.superlink.forward, fence=OpenFence(), heartbeat=0, long_poll=30.0)
        relay.open_session("AT", AT, b"key of AT")
        relay.open_session("BE", BE, b"key of BE")
        self.exchange = OpenExchange(
            self.authority,
            relay,
            enrolments=self.enrolment,
            documents=self.documents,
            clock=self.clock,
        )

    def clock(self) -> datetime:
        return now() + self.ahead

    def link(self, who: Caller) -> ExchangeLink:
        return self.exchange.link(who)

    def invite(self, country: str = "AT", role: Role = Role.OFFICER) -> Invitation:
        address = f"{LOOPBACK}:{self.exchange.port}"
        return self.enrolment.invite(country, role, exchange=address, root_digest=None, now=now())

    def untouched(self) -> bool:
        return not (
            self.superlink.calls
            or self.documents.asked
            or self.documents.handed_in
            or self.enrolment.all()
        )


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    opened = Port(tmp_path)
    yield opened
    opened.exchange.close()


def code_of(
    port: int,
    authority: TransportAuthority,
    who: Caller | None,
    call: str,
    request: Any = None,
) -> grpc.StatusCode:
    """Make one call as `who` and return its status code."""
    pair = (who.key, who.certificate) if who else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate_pem, *pair)
    with grpc.secure_channel(f"{LOOPBACK}:{port}", credentials) as channel:
        stub = exchange_pb2_grpc.ExchangeStub(channel)
        try:
            getattr(stub, call)(sent_as(call, request or REQUESTS[call]), timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


HEARTBEAT = SendNodeHeartbeatRequest(node=Node(node_id=AT)).SerializeToString()
RELAYED = RelayRequest(method="SendNodeHeartbeat", body=HEARTBEAT)
REQUESTS: dict[str, Any] = {
    "Enrol": EnrolRequest(),
    "Fetch": exchange_pb2.FetchRequest(path="metadata/1.root.json"),
    "Submit": SubmitRequest(kind=SubmitRequest.COUNTRY_BUNDLE, content=b"bundle"),
    "Renew": exchange_pb2.RenewRequest(),
    "Relay": RELAYED,
}


def test_every_call_of_the_service_is_in_the_permission_table() -> None:
    declared = exchange_pb2.DESCRIPTOR.services_by_name["Exchange"].methods_by_name
    assert set(declared) == set(MAY_CALL) == set(REQUESTS)


def stranger(_: Port) -> Caller:
    return caller(TransportAuthority.create("danube", now()), role=Role.NODE)


def expired(port: Port) -> Caller:
    return caller(port.authority, at=now() - DAY, lifetime=timedelta(hours=1))


def not_yet_valid(port: Port) -> Caller:
    return caller(port.authority, at=now() + DAY)


def of_a_server(port: Port) -> Caller:
    return caller(port.authority, "ZZ", Role.COORDINATOR, hosts=("localhost",))


def with_another_s_key(port: Port) -> Caller:
    one, other = caller(port.authority), caller(port.authority, "BE")
    return Caller(one.key, other.certificate)


def nobody(_: Port) -> None:
    return None


CUT_OFF: list[Callable[[Port], Caller | None]] = [
    nobody, stranger, expired, not_yet_valid, of_a_server, with_another_s_key
]  # fmt: skip


@pytest.mark.parametrize("who", CUT_OFF, ids=lambda caller: caller.__name__)
def test_a_call_without_a_valid_certificate_is_refused(
    port: Port, who: Callable[[Port], Caller | None]
) -> None:
    try:
        presented = who(port)
        for call in CALLS:
            code = code_of(port.exchange.port, port.authority, presented, call)
            assert code is grpc.StatusCode.UNAVAILABLE, call
    except ValueError:
        assert who is with_another_s_key  # gRPC itself refuses to start with such a pair
    assert port.untouched()


def certificate_naming(port: Port, *uris: str) -> Caller:
    certificate = forged(port.authority, [uri(text) for text in uris])
    return Caller(key_of(port.authority), certificate)


def key_of(authority: TransportAuthority) -> bytes:
    return authority.to_pem()[1]


ODD_NAMES = {
    "no name": (),
    "two names": ("pratique://danube/AT/node", "pratique://danube/BE/node"),
    "unknown role": ("pratique://danube/AT/admin",),
    "another scheme": ("https://danube/AT/node",),
    "a path below": ("pratique://danube/AT/node/x",),
    "a lower-case country": ("pratique://danube/at/node",),
}


@pytest.mark.parametrize("uris", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_a_certificate_without_the_name_of_a_party_allows_no_call(
    port: Port, uris: tuple[str]
) -> None:
    odd = certificate_naming(port, *uris)
    codes = {code_of(port.exchange.port, port.authority, odd, call) for call in CALLS}
    assert codes <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}
    assert port.untouched()


MATRIX = list(itertools.product(CALLS, Role))


@pytest.mark.parametrize(("call", "role"), MATRIX, ids=str)
def test_each_role_may_make_its_own_calls_only(port: Port, call: str, role: Role) -> None:
    code = code_of(port.exchange.port, port.authority, caller(port.authority, role=role), call)
    if role not in MAY_CALL[call]:
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert port.untouched()
        assert [(country, call) for country, call, _ in port.exchange.refusals] == [("AT", call)]
    else:  # an empty enrolment or renewal passes this check, and is refused for its content
        empty = call in {"Enrol", "Renew"}
        expected = grpc.StatusCode.FAILED_PRECONDITION if empty else grpc.StatusCode.OK
        assert code is expected


def test_the_permission_table_is_the_designed_one() -> None:
    allowed = {(call, role.value) for call, role in MATRIX if role in MAY_CALL[call]}
    assert allowed == {
        ("Enrol", "enrolment"),
        ("Fetch", "node"),
        ("Fetch", "officer"),
        ("Renew", "node"),
        ("Renew", "officer"),
        ("Submit", "officer"),
        ("Relay", "node"),
    }


@pytest.mark.parametrize("call", CALLS)
def test_a_certificate_that_ends_during_a_connection_ends_the_calls(port: Port, call: str) -> None:
    role = min(MAY_CALL[call])
    who = caller(port.authority, role=role, lifetime=timedelta(hours=1))
    credentials = grpc.ssl_channel_credentials(
        port.authority.certificate_pem, who.key, who.certificate
    )
    with grpc.secure_channel(f"{LOOPBACK}:{port.exchange.port}", credentials) as channel:
        stub = exchange_pb2_grpc.ExchangeStub(channel)
        _quietly(lambda: getattr(stub, call)(sent_as(call, REQUESTS[call]), timeout=10))
        port.ahead = timedelta(hours=2)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, call)(sent_as(call, REQUESTS[call]), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "expired" in str(caught.value.details())


def _quietly(call: Callable[[], object]) -> None:
    """Return whether the call passed: an empty enrolment passes and is then refused."""
    with contextlib.suppress(grpc.RpcError):
        call()


def enrolled(port: Port, who: Applicant) -> Caller:
    """Enrol a party over the wire."""
    invitation = port.invite(who.statement.country, Role(who.statement.role))
    guest = Caller(invitation.key.encode(), invitation.certificate.encode())
    link, request = port.link(guest), who.request(invitation)
    try:
        reply = link.enrol(request)
        assert reply.status == EnrolReply.PENDING
        port.enrolment.admit(reply.fingerprint, now())
        return Caller(who.key, link.enrol(request).certificate)
    finally:
        link.close()


def test_an_enrolled_party_may_call_until_it_is_revoked(port: Port) -> None:
    link = port.link(enrolled(port, Applicant()))
    try:
        assert link.fetch("metadata/1.root.json") == b"root"
        assert link.fetch("metadata/9.root.json") is None
        link.submit(SubmitRequest.COUNTRY_BUNDLE, b"mine")
        assert port.documents.handed_in == [("AT", SubmitRequest.COUNTRY_BUNDLE, b"mine")]
        port.enrolment.revoke("AT", Role.OFFICER, now())
        calls: tuple[Callable[[], object], ...] = (
            lambda: link.fetch("metadata/1.root.json"),
            lambda: link.submit(SubmitRequest.COUNTRY_BUNDLE, b"again"),
        )
        for call in calls:
            with pytest.raises(LinkFault) as caught:
                call()
            assert "revoked" in caught.value.why
        assert len(port.documents.handed_in) == 1
    finally:
        link.close()


def test_an_invitation_token_is_valid_for_its_own_enrolment_only(port: Port) -> None:
    invitation = port.invite()
    guest = port.link(Caller(invitation.key.encode(), invitation.certificate.encode()))
    try:
        for call in (
            lambda: guest.fetch("metadata/1.root.json"),
            lambda: guest.submit(SubmitRequest.COUNTRY_BUNDLE, b"x"),
            lambda: guest.relay(RELAYED, 5),
        ):
            with pytest.raises(LinkFault, match="enrolment may not call"):
                call()
        assert not port.documents.asked
        with pytest.raises(LinkFault) as caught:
            guest.enrol(Applicant(officer_statement("BE")).request(invitation))
        assert "another country" in caught.value.why
    finally:
        guest.close()


def test_a_caller_cannot_use_the_token_of_another_country(port: Port) -> None:
    mine, theirs = port.invite("AT"), port.invite("BE")
    guest = port.link(Caller(mine.key.encode(), mine.certificate.encode()))
    try:
        with pytest.raises(LinkFault):
            guest.enrol(Applicant(officer_statement("BE")).request(theirs))
    finally:
        guest.close()
    assert port.enrolment.all() == []


def test_a_refused_submission_repeats_the_reason_as_a_quotation(port: Port) -> None:
    port.documents.refusal = DocumentFault("It is old", why="it is version 1", fix="sign again")
    link = port.link(caller(port.authority, role=Role.OFFICER))
    try:
        with pytest.raises(ProtocolFault) as caught:
            link.submit(SubmitRequest.COUNTRY_BUNDLE, b"old")
    finally:
        link.close()
    assert caught.value.what == "The exchange did not accept it"
    assert caught.value.why == "it says 'It is old. it is version 1. sign again'"


def relayed(link: ExchangeLink, method: str, request: object) -> exchange_pb2.RelayReply:
    body = request.SerializeToString()  # type: ignore[attr-defined]
    return link.relay(RelayRequest(method=method, body=body, headers={"flwr-a": "b"}), 5)


def test_a_node_reaches_its_own_session_and_no_other(port: Port) -> None:
    mine, theirs = (port.link(caller(port.authority, country)) for country in ("AT", "BE"))
    port.superlink.will("PullMessages", incoming(tree("secret")))
    reply = PullObjectResponse(object_found=True, object_available=True, object_content=b"content")
    port.superlink.will("PullObject", reply.SerializeToString())
    look = PullMessagesRequest(node=Node(node_id=AT))
    try:
        assert relayed(mine, "PullMessages", look).object == b"content"
        before = len(port.superlink.calls)
        with pytest.raises(LinkFault, match="refused the call"):
            relayed(theirs, "PullMessages", look)
        assert len(port.superlink.calls) == before
        assert [refusal[:2] for refusal in port.exchange.refusals] == [("BE", "PullMessages")]
    finally:
        mine.close()
        theirs.close()


def test_the_largest_frame_passes_both_ways(port: Port) -> None:
    """A round of 10^6 values in 64-bit words is 8 MB; the bound is six times that."""
    frame = pack_frame(bytes(range(256)) * (MAX_FRAME // 256), bytes(NONCE_BYTES))
    port.superlink.will("PullMessages", incoming(tree("large")))
    reply = PullObjectResponse(object_found=True, object_available=True, object_content=frame)
    port.superlink.will("PullObject", reply.SerializeToString())
    name = hashlib.sha256(frame).hexdigest()
    answer = PushMessagesResponse(objects_to_push=[name])
    port.superlink.will("PushMessages", answer.SerializeToString())
    port.superlink.will("PushObject", PushObjectResponse(stored=True).SerializeToString())
    push = push_of(frame, "large", AT)
    link = port.link(caller(port.authority, "AT"))
    try:
        look = PullMessagesRequest(node=Node(node_id=AT)).SerializeToString()
        assert link.relay(RelayRequest(method="PullMessages", body=look), 60).object == frame
        body = push.SerializeToString()
        request = RelayRequest(method="PushMessages", body=body, object=frame)
        assert link.relay(request, 60).status == 200
    finally:
        link.close()
    (stored,) = [body for method, body, _ in port.superlink.calls if method == "PushObject"]
    assert PushObjectRequest.FromString(stored).object_content == frame


@pytest.mark.parametrize(
    "method", ["GetRun", "GetFab", "RegisterNode", "UnregisterNode", *OBJECT_CALLS, ""]
)
def test_calls_outside_the_list_are_refused_on_the_wire(port: Port, method: str) -> None:
    assert method not in FLEET_CALLS
    link = port.link(caller(port.authority))
    try:
        with pytest.raises(LinkFault) as caught:
            link.relay(RelayRequest(method=method, body=HEARTBEAT), 5)
        assert "is not forwarded" in caught.value.why
    finally:
        link.close()
    assert not port.superlink.calls


def test_a_message_that_arrives_while_a_revoked_node_waits_is_not_delivered(port: Port) -> None:
    serial_holder = caller(port.authority)
    link = port.link(serial_holder)
    body = PullMessagesRequest(node=Node(node_id=AT)).SerializeToString()
    request = RelayRequest(method="PullMessages", body=body)
    waiting = link._wire.stub.Relay.future(sent_as("Relay", request), timeout=20)
    try:
        wait_until(lambda: "PullMessages" in port.superlink.methods)
        port.enrolment.register._revoked |= {_serial(serial_holder)}
        port.superlink.will("PullMessages", incoming(tree("secret")))
        port.exchange.announce(["AT"])
        with pytest.raises(grpc.RpcError) as caught:
            waiting.result()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        link.close()


def _serial(who: Caller) -> int:
    return x509.load_pem_x509_certificate(who.certificate).serial_number


def test_a_message_larger_than_the_limit_is_refused(port: Port) -> None:
    link = port.link(caller(port.authority, role=Role.OFFICER))
    credentials = grpc.ssl_channel_credentials(
        port.authority.certificate_pem, *_pair(caller(port.authority, role=Role.OFFICER))
    )
    options = [("grpc.max_send_message_length", -1)]
    target = f"{LOOPBACK}:{port.exchange.port}"
    with grpc.secure_channel(target, credentials, options=options) as channel:
        request = SubmitRequest(content=bytes(MAX_MESSAGE + 1))
        with pytest.raises(grpc.RpcError) as caught:
            exchange_pb2_grpc.ExchangeStub(channel).Submit(sent_as("Submit", request), timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    link.close()
    assert not port.documents.handed_in


@pytest.mark.slow
def test_an_idle_party_that_pings_keeps_its_connection(port: Port) -> None:
    officer = caller(port.authority, role=Role.OFFICER)
    credentials = grpc.ssl_channel_credentials(port.authority.certificate_pem, *_pair(officer))
    often = {"grpc.keepalive_time_ms": 1_500, "grpc.keepalive_permit_without_calls": 1}
    often["grpc.http2.max_pings_without_data"] = 0
    states: list[grpc.ChannelConnectivity] = []
    target = f"{LOOPBACK}:{port.exchange.port}"
    with grpc.secure_channel(target, credentials, options=tuple(often.items())) as channel:
        channel.subscribe(states.append)
        exchange_pb2_grpc.ExchangeStub(channel).Fetch(iter([REQUESTS["Fetch"]]), timeout=5)
        time.sleep(7)  # four pings
        assert states[-1] is grpc.ChannelConnectivity.READY


def _pair(who: Caller) -> tuple[bytes, bytes]:
    return who.key, who.certificate


def test_the_port_accepts_tls_only(port: Port) -> None:
    with grpc.insecure_channel(f"{LOOPBACK}:{port.exchange.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            exchange_pb2_grpc.ExchangeStub(channel).Fetch(iter([REQUESTS["Fetch"]]), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert port.untouched()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(port: Port, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection((LOOPBACK, port.exchange.port), 5) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


def test_an_unknown_call_is_refused(port: Port) -> None:
    credentials = grpc.ssl_channel_credentials(
        port.authority.certificate_pem, *_pair(caller(port.authority))
    )
    with grpc.secure_channel(f"{LOOPBACK}:{port.exchange.port}", credentials) as channel:
        for name in ("/pratique.exchange.v1.Exchange/Admit", "/grpc.reflection.v1/List", "/"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(name, None, None)(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("call", CALLS)
def test_malformed_requests_are_refused(port: Port, call: str) -> None:
    who = caller(port.authority, role=min(MAY_CALL[call]))
    credentials = grpc.ssl_channel_credentials(port.authority.certificate_pem, *_pair(who))
    with grpc.secure_channel(f"{LOOPBACK}:{port.exchange.port}", credentials) as channel:
        method = channel.unary_unary(f"/pratique.exchange.v1.Exchange/{call}", None, None)
        for junk in (b"\xff" * 40, b"\x80\x04\x95pickle", b"\x0a\xff\xff\xff\xff\x0f"):
            with pytest.raises(grpc.RpcError) as caught:
                method(junk, timeout=5)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert port.untouched()


def test_a_stopped_exchange_does_not_answer(port: Port) -> None:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        free = probe.getsockname()[1]
    link = caller(port.authority).link(free, port.authority)
    with pytest.raises(LinkFault) as caught:
        link.fetch("draft", seconds=2)
    assert "does not answer" in caught.value.what
    assert caught.value.fix
    link.close()
    with pytest.raises(LinkFault) as closed:
        link.fetch("draft")
    assert "closed" in closed.value.what


def test_a_link_to_an_exchange_of_another_authority_is_refused(port: Port) -> None:
    other = TransportAuthority.create("danube", now())
    link = caller(port.authority).link(port.exchange.port, other)
    with pytest.raises(LinkFault) as caught:
        link.fetch("draft", seconds=5)
    assert "CERTIFICATE_VERIFY_FAILED" in caught.value.why
    link.close()
    assert port.untouched()


def test_an_address_in_use_gives_a_clear_error(port: Port) -> None:
    own = caller(port.authority, "ZZ", Role.COORDINATOR, hosts=(LOOPBACK,))
    for address in (f"{LOOPBACK}:{port.exchange.port}", "192.0.2.1:7443", "nowhere.invalid:1"):
        start = serve_exchange(
            ExchangeService.__new__(ExchangeService),
            address,
            credentials=FixedCredentials(
                (own.key, own.certificate), port.authority.certificate_pem
            ),
            clock=now,
            room=ROOM,
            inner=inner_socket(),
        )
        with pytest.raises(CoordinatorFault, match="cannot listen") as caught:
            port.exchange.thread.run(start)
        assert caught.value.why
        assert "coordinator.yaml" in caught.value.fix
