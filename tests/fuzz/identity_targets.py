"""Targets: enrolment, certificates and their renewal, keys."""

import base64
from functools import cache

from google.protobuf.message import DecodeError

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
    RenewReply,
    RenewRequest,
)
from protocols.wire.invitation import Invitation, Statement
from protocols.wire.proxy import route_to
from server.exchange.node_sessions import NodeSessions
from server.membership.enrolment import _check_keys
from tests.fuzz.target import (
    Seeds,
    Target,
    parts,
    scratch,
    text,
)
from tests.fuzz.target import joined as of_parts
from tests.support.documents import DAY, NOW, raw_key, two_algorithm_key
from tests.support.enrolling import node_statement, officer_statement
from tests.support.keystore import fast_store

AUTHORITY = TransportAuthority.create("danube", NOW)
NEXT_AUTHORITY = TransportAuthority.create("danube", NOW)
KEY, NEW_KEY = new_transport_key(), new_transport_key()
CERTIFICATE, RENEWED = (
    AUTHORITY.issue(public_pem(key), country="DK", role=Role.NODE, now=NOW, lifetime=DAY)
    for key in (KEY, NEW_KEY)
)
SERIAL = serial_of(CERTIFICATE)
_, NODE_AUTH_LINE = new_node_auth_key()
TOKEN = bytes(32)


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


CERTIFICATES = (CERTIFICATE, RENEWED, AUTHORITY.certificate_pem)
VOUCHERS = AUTHORITY.vouch(NEXT_AUTHORITY, NOW)
BOTH_AUTHORITIES = AUTHORITY.certificate_pem + NEXT_AUTHORITY.certificate_pem
ENROLMENT, INVITATION = "server/membership/enrolment.py", "protocols/wire/invitation.py"
PEM = "keys/pem.py"
KEY_TEXTS = tuple(key.public.to_text().encode() for key in (raw_key(7), two_algorithm_key(7)))
IDENTITY_TARGETS: dict[str, Target] = {
    "request for enrolment": Target(
        _enrol, _enrol_seeds, (ENROLMENT, INVITATION, "server/exchange/node_sessions.py")
    ),
    "request for renewal": Target(_renew, _renew_seeds, ("keys/renewal.py", PEM)),
    "answer to a renewal": Target(
        _renewed, _renewed_seeds, ("governance/runtime/credentials.py", "keys/succession.py", PEM)
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
}
