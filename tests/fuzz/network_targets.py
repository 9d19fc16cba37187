"""Targets: what crosses the network: calls and their answers, enrolment, certificates and keys."""

import asyncio
import base64
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Message
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.supercore.inflatable.inflatable_object import get_object_id
from google.protobuf.message import DecodeError

from client.app import build_app
from client.flower_client import FleetClient, _unpack, _with_link_faults
from client.state.incarnation import Incarnation
from governance.runtime.credentials import Credentials, KeptPair
from keys.certificates import (
    Role,
    TransportAuthority,
    new_node_auth_key,
    new_transport_key,
    peer_of,
    public_pem,
)
from keys.composite import read_identity
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from keys.pem import (
    parse_certificates,
    parse_private_key,
    parse_public_key,
    pem_of_certificate,
    private_pem,
)
from keys.renewal import proven_key, renewal_proof, serial_of
from keys.succession import followed
from protocols.proto.exchange_pb2 import (
    EnrolRequest,
    RelayReply,
    RelayRequest,
    RenewReply,
    RenewRequest,
    RequestPart,
)
from protocols.wire.channel import said
from protocols.wire.exchange_clock import TIME_KEY, TOLERATED, ExchangeClock
from protocols.wire.flower_frame import (
    FLEET_CALLS,
    LARGEST_BODY,
    MAX_FRAME,
    NONCE_BYTES,
    group_of,
    largest_reply,
)
from protocols.wire.flower_object import object_name, pack_frame, unpack_frame
from protocols.wire.invitation import Invitation, Statement
from protocols.wire.proxy import VARIABLES, route_to
from protocols.wire.request_parts import PART_BYTES, joined, parts_of
from server.exchange.fleet_requests import parse_request
from server.exchange.node_sessions import NodeSessions
from server.flower.bundle import build_bundle
from server.flower.bundle_guard import ALLOWED, CONFIGURATION, check_bundle
from server.membership.enrolment import _check_keys
from tests.fuzz.target import (
    SEPARATOR,
    Seeds,
    Target,
    parts,
    require_seen,
    scratch,
    text,
)
from tests.fuzz.target import joined as of_parts
from tests.support.documents import DAY, NOW, raw_key, two_algorithm_key
from tests.support.enrolling import node_statement, officer_statement
from tests.support.exchange_server import incoming, tree
from tests.support.keystore import fast_store
from tests.support.relay_harness import AT, CONTENT, NAME, REQUESTS, RelayHarness, relayed

AUTHORITY = TransportAuthority.create("danube", NOW)
NEXT_AUTHORITY = TransportAuthority.create("danube", NOW)
KEY, NEW_KEY = new_transport_key(), new_transport_key()
CERTIFICATE, RENEWED = (
    AUTHORITY.issue(public_pem(key), country="DK", role=Role.NODE, now=NOW, lifetime=DAY)
    for key in (KEY, NEW_KEY)
)
SERIAL = serial_of(CERTIFICATE)
NODE_AUTH_KEY, NODE_AUTH_LINE = new_node_auth_key()
TOKEN = bytes(32)
FLEET_REQUESTS = "server/exchange/fleet_requests.py"
FLOWER_OBJECT, FLOWER_CLIENT = "protocols/wire/flower_object.py", "client/flower_client.py"


def _relayed(data: bytes) -> None:
    """Relay a call of AT's node: the SuperLink gets nothing that is large, or in another name."""
    try:
        request = RelayRequest.FromString(data)
    except DecodeError:
        return
    harness = RelayHarness()
    harness.relay._long_poll = 0
    harness.ask()

    async def call() -> None:
        await harness.relay.call("AT", request)

    try:
        asyncio.run(call())
    finally:
        for method, body, headers in harness.superlink.calls:
            assert len(body) <= LARGEST_BODY + len(request.object)
            assert all(name.startswith("flwr-") for name in headers)
            _require_own(method, body)


def _require_own(method: str, body: bytes) -> None:
    """Require that a request to the SuperLink names no other node than AT's."""
    if method in FLEET_CALLS and method not in ("ActivateNode", "DeactivateNode"):
        assert parse_request(method, body[:LARGEST_BODY]).node.node_id == AT


def _relay_seeds() -> Seeds:
    calls = [relayed("AT", method, make(AT)) for method, make in REQUESTS.items()]
    calls.append(relayed("AT", "PushMessages", REQUESTS["PushMessages"](AT), object=CONTENT))
    return tuple(call.SerializeToString() for call in calls)


def _in_parts(data: bytes) -> None:
    """Join a request's parts: nothing is added or left out, and no more is read than was stated."""
    sent = list(_parts_in(data))
    taken: list[RequestPart] = []

    async def arrive() -> AsyncIterator[RequestPart]:
        for part in sent:
            taken.append(part)
            yield part

    async def admit(size: int) -> None:
        assert size == sent[0].size
        assert len(taken) == 1

    request = asyncio.run(joined(arrive(), admit))
    assert request == b"".join(part.content for part in taken)
    assert len(request) == sent[0].size
    assert [part.content for part in parts_of(request)] == [part.content for part in taken]


def _parts_in(data: bytes) -> Iterator[RequestPart]:
    for piece in data.split(SEPARATOR):
        try:
            yield RequestPart.FromString(piece)
        except DecodeError:
            return


def _parts_seeds() -> Seeds:
    whole = [part.SerializeToString() for part in parts_of(b"x" * 100)]
    two = [part.SerializeToString() for part in parts_of(bytes(PART_BYTES + 1))]
    return of_parts(*whole), of_parts(*two), of_parts(*whole, *whole)


class _Registered:
    """The relay and the SuperLink, as the node sessions use them."""

    def register(self, line: str) -> int:
        assert len(line.split(" ")) == 2
        return 1


def _enrol(data: bytes) -> None:
    """Read a request for admission: the keys in it can be used once the party is admitted."""
    try:
        request = EnrolRequest.FromString(data)
    except DecodeError:
        return
    statement = Statement.from_bytes(request.statement)
    assert statement.to_bytes() == request.statement
    _check_keys(request.transport_key, statement)
    if statement.node_auth is not None:
        NodeSessions(_Registered(), _Registered()).open_session(statement)  # type: ignore[arg-type]


def _enrol_seeds() -> Seeds:
    key = public_pem(KEY)
    plain = {"node_auth": NODE_AUTH_LINE}
    both = {**plain, "identity_key": two_algorithm_key(7).public.to_text()}
    statements = (officer_statement(), node_statement(**plain), node_statement(**both))
    return tuple(
        EnrolRequest(token=TOKEN, transport_key=key, statement=each.to_bytes()).SerializeToString()
        for each in statements
    )


def _renew(data: bytes) -> None:
    """Read a request to renew: only the holder of a key can prove that it has it."""
    try:
        request = RenewRequest.FromString(data)
    except DecodeError:
        return
    assert proven_key(request.public_key, request.proof, SERIAL) == public_pem(NEW_KEY)


def _renew_seeds() -> Seeds:
    proof = renewal_proof(NEW_KEY, SERIAL)
    request = RenewRequest(public_key=public_pem(NEW_KEY), proof=proof)
    return (request.SerializeToString(),)


@cache
def _credentials() -> Credentials:
    folder = scratch() / "party"
    folder.mkdir()
    (folder / "authority.pem").write_bytes(AUTHORITY.certificate_pem)
    pair = KeptPair(fast_store(folder / "keys"), "transport-key", folder / "certificate.pem")
    return Credentials(pair, folder / "authority.pem", clock=lambda: NOW)


def _renewed(data: bytes) -> None:
    """Read the exchange's answer to a renewal: it names no authority that nobody vouches for."""
    try:
        reply = RenewReply.FromString(data)
    except DecodeError:
        return
    authority = _credentials()._checked(CERTIFICATE, NEW_KEY, reply)
    known = {AUTHORITY.certificate_pem, NEXT_AUTHORITY.certificate_pem}
    trusted = {pem_of_certificate(each) for each in parse_certificates(authority)}
    assert trusted <= known
    assert peer_of(reply.certificate, authority_pem=authority, now=NOW, revoked=()).country == "DK"


def _renewed_seeds() -> Seeds:
    both = AUTHORITY.certificate_pem + NEXT_AUTHORITY.certificate_pem
    vouchers = AUTHORITY.vouch(NEXT_AUTHORITY, NOW)
    replies = (
        RenewReply(certificate=RENEWED, authority=AUTHORITY.certificate_pem),
        RenewReply(certificate=RENEWED, authority=both, succession=vouchers),
    )
    return tuple(reply.SerializeToString() for reply in replies)


class _Link:
    """An exchange that answers every call with one answer."""

    def __init__(self, reply: RelayReply) -> None:
        self.reply, self.clock = reply, ExchangeClock(lambda: NOW)

    def relay(self, *_: object) -> RelayReply:
        return self.reply


@cache
def _node_key() -> object:
    return load_pem_private_key(NODE_AUTH_KEY, None)


def _answered(data: bytes) -> None:
    """Read the exchange's answer to a node's call, whichever call it is."""
    try:
        reply = RelayReply.FromString(data)
    except DecodeError:
        return
    app = build_app(lambda _: b"")
    here = Incarnation(1, bytes(16), b"")
    client = FleetClient(_Link(reply), _node_key(), app, here)  # type: ignore[arg-type]
    for call in (client._activate, partial(_pull, client, reply)):
        with suppress(PratiqueError):
            call()


def _pull(client: FleetClient, reply: RelayReply) -> None:
    message: Message | None = _with_link_faults(lambda: client._pull(NODE))
    if message is not None:
        assert unpack_frame(reply.object) is not None
        assert message.metadata.message_id == object_name(reply.object)


NODE = REQUESTS["PullMessages"](AT).node


def _answered_seeds() -> Seeds:
    replies = (
        RelayReply(status=200, body=ActivateNodeResponse(node_id=1).SerializeToString()),
        RelayReply(status=200, body=incoming(tree(NAME)), object=CONTENT),
        RelayReply(status=409, disputed=True),
        RelayReply(status=500, body=b"not now"),
    )
    return tuple(reply.SerializeToString() for reply in replies)


def _object(data: bytes) -> None:
    """Read the one object of a message: it is byte for byte what writes its frame."""
    frame = unpack_frame(data)
    assert (_unpack(data, get_object_id(data)) is None) == (frame is None)
    if frame is not None:
        assert pack_frame(frame, data[-NONCE_BYTES:]) == data


def _largest(group: str) -> None:
    assert 0 <= largest_reply(group) <= MAX_FRAME


def _clock(stated: str) -> None:
    """Note the time that an exchange states: it can be used and shown, however wrong it is."""
    clock = ExchangeClock(lambda: NOW)
    clock.note(((TIME_KEY, stated),), timedelta())
    require_seen(clock.difference())
    if clock.is_tolerated:
        assert abs(clock.now() - NOW) <= TOLERATED
    clock.now().isoformat()


def _proxy(address: bytes, url: bytes, exceptions: bytes) -> None:
    """Find the route to an exchange: nothing that is shown has the password of a proxy."""
    named = [each.decode(errors="surrogateescape") for each in (address, url, exceptions)]
    for variable in VARIABLES:
        route = route_to(named[0], {variable: named[1], "no_proxy": named[2]})
        assert (route.proxy is None) == (route.options == [("grpc.enable_http_proxy", 0)])
        password = named[1].rpartition("@")[0].rpartition(":")[2]
        assert len(password) < 8 or password not in route.says


def _said(words: str) -> None:
    require_seen(said(words))


def _certificate(data: bytes) -> None:
    """Read a certificate: no other one than those that the authority issued names a party."""
    peer = peer_of(data, authority_pem=AUTHORITY.certificate_pem, now=NOW, revoked=())
    assert peer.serial in (SERIAL, serial_of(RENEWED))


def _authorities(offered: bytes, vouchers: bytes) -> None:
    """Follow a succession: an authority that no trusted one vouches for is not trusted."""
    trusted = followed(AUTHORITY.certificate_pem, offered, vouchers, NOW)
    known = {AUTHORITY.certificate_pem, NEXT_AUTHORITY.certificate_pem}
    assert {pem_of_certificate(each) for each in parse_certificates(trusted)} <= known


def _private_key(data: bytes) -> None:
    key = parse_private_key(data)
    assert parse_private_key(private_pem(key)).private_numbers() == key.private_numbers()


def _key_text(typed: str) -> None:
    """Read a public key: each key has one text."""
    assert read_identity(typed).to_text() == typed
    if typed.startswith("ed25519:"):
        assert VerifyKey.from_text(typed).to_text() == typed


def _fleet_calls() -> Iterator[tuple[str, Target]]:
    for method in sorted(FLEET_CALLS):
        seeds = (REQUESTS[method](AT).SerializeToString(),)
        yield (
            f"Fleet call {method}",
            Target(partial(parse_request, method), seeds, (FLEET_REQUESTS,)),
        )


def _invitation(data: bytes) -> None:
    """Read an invitation: what it states is in the form that enrolment uses."""
    invitation = Invitation.from_bytes(data)
    assert len(invitation.token_bytes()) == len(TOKEN)
    route_to(invitation.exchange, {})


def _invitation_seeds() -> Seeds:
    invitation = Invitation(
        federation="danube",
        exchange="exchange.example.org:7443",
        country="DK",
        role="node",
        token=base64.b64encode(TOKEN).decode(),
        authority=AUTHORITY.certificate_pem.decode(),
        authority_digest=AUTHORITY.digest,
        root_digest=None,
        certificate=CERTIFICATE.decode(),
        key=KEY.decode(),
        expires=NOW + DAY,
    )
    return (invitation.model_dump_json().encode(),)


def _statement(data: bytes) -> None:
    assert Statement.from_bytes(data).to_bytes() == data


def _flower_bundle(data: bytes) -> None:
    """Check a Flower bundle: one that is allowed has nothing but configuration for our apps."""
    check_bundle(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert set(archive.namelist()) <= ALLOWED


def _bundle_seeds() -> Seeds:
    built = build_bundle(scratch() / "bundle", "c" * 32, 1) / CONFIGURATION
    return _zipped(built.read_text()), _zipped("[project]\n")


def _zipped(content: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr(CONFIGURATION, content)
    return archive.getvalue()


CERTIFICATES = (CERTIFICATE, RENEWED, AUTHORITY.certificate_pem)
VOUCHERS = AUTHORITY.vouch(NEXT_AUTHORITY, NOW)
BOTH_AUTHORITIES = AUTHORITY.certificate_pem + NEXT_AUTHORITY.certificate_pem
ENROLMENT, INVITATION = "server/membership/enrolment.py", "protocols/wire/invitation.py"
PEM = "keys/pem.py"
KEY_TEXTS = tuple(key.public.to_text().encode() for key in (raw_key(7), two_algorithm_key(7)))
TIMES = tuple(
    f"{NOW + ahead:%Y-%m-%dT%H:%M:%S}{zone}".encode()
    for ahead in (timedelta(), timedelta(seconds=90))
    for zone in ("+00:00", "Z", "-23:59", "")
)
NETWORK_TARGETS: dict[str, Target] = {
    **dict(_fleet_calls()),
    "call of a node": Target(
        _relayed, _relay_seeds, (FLEET_REQUESTS, "server/exchange/relay.py", FLOWER_OBJECT)
    ),
    "request in parts": Target(_in_parts, _parts_seeds, ("protocols/wire/request_parts.py",)),
    "request for enrolment": Target(
        _enrol, _enrol_seeds, (ENROLMENT, INVITATION, "server/exchange/node_sessions.py")
    ),
    "request for renewal": Target(_renew, _renew_seeds, ("keys/renewal.py", PEM)),
    "answer to a renewal": Target(
        _renewed, _renewed_seeds, ("governance/runtime/credentials.py", "keys/succession.py", PEM)
    ),
    "answer to a node's call": Target(_answered, _answered_seeds, (FLOWER_CLIENT, FLOWER_OBJECT)),
    "object of Flower": Target(_object, (CONTENT,), (FLOWER_OBJECT, FLOWER_CLIENT)),
    "group of a message": Target(
        text(_largest), (group_of(100).encode(),), ("protocols/wire/flower_frame.py",)
    ),
    "time of the exchange": Target(text(_clock), TIMES, ("protocols/wire/exchange_clock.py",)),
    "proxy in the environment": Target(
        parts(_proxy, 3),
        (
            of_parts(b"exchange.example.org:7443", b"http://u:password@proxy:3128", b".org,10.0/8"),
            of_parts(b"[2001:db8::1]:7443", b"proxy.example.org:3128", b"2001:db8::/32"),
        ),
        ("protocols/wire/proxy.py",),
    ),
    "refusal of the exchange": Target(
        text(_said), (b"It is full",), ("protocols/wire/channel.py",)
    ),
    "invitation": Target(_invitation, _invitation_seeds, (INVITATION,)),
    "statement of an applicant": Target(
        _statement,
        tuple(each.to_bytes() for each in (officer_statement(), node_statement())),
        (INVITATION,),
    ),
    "certificate": Target(_certificate, CERTIFICATES, ("keys/certificates.py", PEM)),
    "authorities": Target(
        parts(_authorities, 2),
        (of_parts(AUTHORITY.certificate_pem), of_parts(BOTH_AUTHORITIES, VOUCHERS)),
        ("keys/succession.py", PEM),
    ),
    "public key, PEM": Target(parse_public_key, (public_pem(KEY),), (PEM,)),
    "private key, PEM": Target(_private_key, (KEY,), (PEM,)),
    "public key, text": Target(
        text(_key_text), KEY_TEXTS, ("keys/composite.py", "keys/identity.py")
    ),
    "Flower bundle": Target(_flower_bundle, _bundle_seeds, ("server/flower/bundle_guard.py",)),
}
