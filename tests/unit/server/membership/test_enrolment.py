"""Enrolment: a party is admitted once, by a person; everything else is refused."""

import base64
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from governance.runtime.database import open_database
from keys.certificates import (
    Role,
    TransportAuthority,
    certificate_fingerprint,
    peer_of,
    public_pem,
)
from keys.composite import CompositeSigningKey
from keys.errors import PratiqueError
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest
from protocols.wire.invitation import Invitation, enrolment_fingerprint
from server.errors import CoordinatorFault
from server.membership.certificates import CERTIFICATE_LIFETIME
from server.membership.enrolment import (
    ADMITTED,
    PENDING,
    REFUSED,
    EnrolmentService,
)
from server.membership.invitations import INVITATION_LIFETIME
from server.state.tables import MIGRATIONS, invitations, parties
from tests.support.documents import two_algorithm_key
from tests.support.enrolling import Applicant, enrolment_of, node_statement, officer_statement
from tests.support.examples import examples

SECOND = timedelta(seconds=1)


@pytest.fixture
def invitation(enrolment: EnrolmentService, moment: datetime) -> Invitation:
    return invite(enrolment, moment)


def invite(
    enrolment: EnrolmentService, moment: datetime, country: str = "AT", role: Role = Role.OFFICER
) -> Invitation:
    return enrolment.invite(country, role, exchange="127.0.0.1:1", root_digest=None, now=moment)


def admitted(
    enrolment: EnrolmentService, moment: datetime, who: Applicant, role: Role = Role.OFFICER
) -> EnrolReply:
    country = who.statement.country
    request = who.request(invite(enrolment, moment, country, role))
    enrolment.admit(enrolment.enrol(country, request, moment).fingerprint, moment)
    return enrolment.enrol(country, request, moment)


def refused(
    enrolment: EnrolmentService, request: EnrolRequest, moment: datetime, country: str = "AT"
) -> ProtocolFault:
    before = enrolment.all()
    with pytest.raises(ProtocolFault) as caught:
        enrolment.enrol(country, request, moment)
    assert enrolment.all() == before
    return caught.value


def test_an_invited_party_is_pending_then_admitted(
    enrolment: EnrolmentService,
    invitation: Invitation,
    moment: datetime,
    authority: TransportAuthority,
) -> None:
    who = Applicant()
    request = who.request(invitation)
    first = enrolment.enrol("AT", request, moment)
    assert (first.status, first.certificate) == (EnrolReply.PENDING, b"")
    assert first.fingerprint == enrolment_fingerprint(request.transport_key, request.statement)
    assert enrolment.enrol("AT", request, moment) == first
    enrolment.admit(first.fingerprint, moment)
    reply = enrolment.enrol("AT", request, moment)
    assert reply.status == EnrolReply.ADMITTED
    peer = peer_of(
        reply.certificate, authority_pem=authority.certificate_pem, now=moment, revoked=()
    )
    assert (peer.country, peer.role, peer.federation) == ("AT", Role.OFFICER, "danube")
    assert peer.not_after <= moment + CERTIFICATE_LIFETIME


def test_the_certificate_is_for_the_requested_key(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    from cryptography import x509  # noqa: PLC0415 (used here only)

    who = Applicant()
    certificate = x509.load_pem_x509_certificate(admitted(enrolment, moment, who).certificate)
    certified_key = certificate.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    assert certified_key == public_pem(who.key)


def test_the_certificate_of_an_invitation_allows_only_enrolment(
    invitation: Invitation, moment: datetime, authority: TransportAuthority
) -> None:
    presented = invitation.certificate.encode()
    peer = peer_of(presented, authority_pem=authority.certificate_pem, now=moment, revoked=())
    assert (peer.country, peer.role) == ("AT", Role.ENROLMENT)
    assert peer.not_after <= moment + INVITATION_LIFETIME
    assert certificate_fingerprint(invitation.authority.encode()) == invitation.authority_digest


def test_a_token_is_not_stored(invitation: Invitation, engine: Engine, tmp_path: Path) -> None:
    with engine.connect() as connection:
        row = connection.execute(select(invitations)).one()
    assert row.used is None
    assert invitation.token not in str(row)
    for file in tmp_path.iterdir():
        assert invitation.token_bytes() not in file.read_bytes()


def test_another_request_with_the_same_token_is_refused(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    enrolment.enrol("AT", Applicant().request(invitation), moment)
    fault = refused(enrolment, Applicant().request(invitation), moment)
    assert "already used" in fault.why


@pytest.mark.parametrize("part", ["transport_key", "statement"])
def test_a_changed_request_with_the_same_token_is_refused(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime, part: str
) -> None:
    who, other = Applicant(), Applicant()
    enrolment.enrol("AT", who.request(invitation), moment)
    theirs = getattr(other.request(invitation), part)
    refused(enrolment, who.request(invitation, **{part: theirs}), moment)


def test_unknown_fields_make_another_request(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    request = Applicant().request(invitation)
    enrolment.enrol("AT", request, moment)
    padded = EnrolRequest.FromString(request.SerializeToString() + b"\x7a\x01x")
    refused(enrolment, padded, moment)


def test_a_token_stays_valid_after_a_refused_request(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(enrolment, Applicant(officer_statement("BE")).request(invitation), moment)
    refused(enrolment, Applicant().request(invitation, transport_key=b"junk"), moment)
    assert (
        enrolment.enrol("AT", Applicant().request(invitation), moment).status == EnrolReply.PENDING
    )


def test_a_token_for_another_country_is_refused(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(enrolment, Applicant(officer_statement("BE")).request(invitation), moment, "BE")


def test_a_statement_for_another_country_than_that_of_the_caller_is_refused(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(enrolment, Applicant(officer_statement("BE")).request(invitation), moment, "AT")
    refused(enrolment, Applicant(officer_statement("AT")).request(invitation), moment, "BE")


def test_a_token_for_another_role_is_refused(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(enrolment, Applicant(node_statement()).request(invitation), moment)


def test_an_unknown_token_is_refused(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    for token in (b"", bytes(32), invitation.token_bytes()[:-1], invitation.token_bytes() + b"\0"):
        refused(enrolment, Applicant().request(invitation, token=token), moment)


def test_an_invitation_expires_to_the_second(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    end = moment + INVITATION_LIFETIME
    refused(enrolment, Applicant().request(invitation), end)
    assert enrolment.enrol("AT", Applicant().request(invitation), end - SECOND).status


def pem(key: object) -> bytes:
    public = key.public_key()  # type: ignore[attr-defined]
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


UNUSABLE = {
    "nothing": b"",
    "junk": b"junk",
    "a private key": Applicant().key,
    "P-384": pem(ec.generate_private_key(ec.SECP384R1())),
    "Ed25519": pem(Ed25519PrivateKey.generate()),
    "RSA": pem(rsa.generate_private_key(65537, 2048)),
    "padded": public_pem(Applicant().key) + b"#" * 5000,
}


@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_transport_key_that_could_not_be_certified_is_refused_at_once(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime, key: bytes
) -> None:
    fault = refused(enrolment, Applicant().request(invitation, transport_key=key), moment)
    assert "transport key" in fault.why


def line(key: object) -> str:
    public = key.public_key()  # type: ignore[attr-defined]
    return str(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def compressed(public_line: str) -> str:
    """Return an OpenSSH line whose point is marked as compressed, which no parser here reads."""
    kind, encoded = public_line.split()
    raw = base64.b64decode(encoded).replace(b"a\x04", b"a\x02")
    return f"{kind} {base64.b64encode(raw).decode()}"


@pytest.mark.parametrize(
    "auth",
    [
        "",
        "junk",
        "ssh-rsa AAAA",
        line(Ed25519PrivateKey.generate()),
        line(ec.generate_private_key(ec.SECP521R1())),
        line(rsa.generate_private_key(65537, 2048)),
        compressed(line(ec.generate_private_key(ec.SECP384R1()))),
        line(ec.generate_private_key(ec.SECP384R1())).replace(" AAAA", " AA\u00a0AA"),
        line(ec.generate_private_key(ec.SECP384R1())).replace(" AAAA", " AA*AA"),
    ],
    ids=["empty", "junk", "cut", "Ed25519", "P-521", "RSA", "compressed", "blank", "spelling"],
)
def test_a_node_whose_superlink_key_is_unusable_is_refused_at_once(
    enrolment: EnrolmentService, moment: datetime, auth: str
) -> None:
    """If it were admitted, the coordinator could not start."""
    invitation = invite(enrolment, moment, role=Role.NODE)
    fault = refused(
        enrolment, Applicant(node_statement(node_auth=auth)).request(invitation), moment
    )
    assert "SuperLink key" in fault.why


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(statement=st.binary(max_size=200), key=st.binary(max_size=200), token=st.binary(max_size=40))
def test_arbitrary_bytes_are_refused_in_plain_words(
    enrolment: EnrolmentService, moment: datetime, statement: bytes, key: bytes, token: bytes
) -> None:
    request = EnrolRequest(token=token, transport_key=key, statement=statement)
    refused(enrolment, request, moment)


@pytest.mark.parametrize("fingerprint", ["", "abcd-efgh", "%", "' or 1=1 --"])
def test_a_wrong_fingerprint_admits_nobody(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime, fingerprint: str
) -> None:
    enrolment.enrol("AT", Applicant().request(invitation), moment)
    with pytest.raises(CoordinatorFault) as caught:
        enrolment.admit(fingerprint, moment)
    assert "waits for approval" in caught.value.what
    assert caught.value.why
    assert "admit --list" in caught.value.fix
    assert [one.status for one in enrolment.all()] == [PENDING]


def test_a_part_of_a_fingerprint_admits_nobody(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    fingerprint = enrolment.enrol("AT", Applicant().request(invitation), moment).fingerprint
    for part in (fingerprint[:-1], fingerprint[1:], fingerprint.replace("-", "")):
        with pytest.raises(CoordinatorFault):
            enrolment.admit(part, moment)


def test_a_fingerprint_is_accepted_as_people_type_it(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    fingerprint = enrolment.enrol("AT", Applicant().request(invitation), moment).fingerprint
    assert enrolment.admit(f"  {fingerprint.upper()}\n", moment).country == "AT"


def test_nobody_is_admitted_twice_or_after_a_refusal(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    for decide in (lambda fingerprint: enrolment.admit(fingerprint, moment), enrolment.refuse):
        fingerprint = enrolment.enrol(
            "AT", Applicant().request(invite(enrolment, moment)), moment
        ).fingerprint
        decide(fingerprint)
        with pytest.raises(CoordinatorFault):
            enrolment.admit(fingerprint, moment)
        with pytest.raises(CoordinatorFault):
            enrolment.refuse(fingerprint)


def test_a_refused_party_gets_the_refusal_and_no_certificate(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    request = Applicant().request(invitation)
    enrolment.refuse(enrolment.enrol("AT", request, moment).fingerprint)
    reply = enrolment.enrol("AT", request, moment)
    assert (reply.status, reply.certificate) == (EnrolReply.REFUSED, b"")
    assert [one.status for one in enrolment.all()] == [REFUSED]


def test_a_party_that_was_invited_twice_with_the_same_keys_can_be_admitted(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    who = Applicant()
    requests = [who.request(invite(enrolment, moment)) for _ in range(2)]
    replies = [enrolment.enrol("AT", one, moment + n * SECOND) for n, one in enumerate(requests)]
    assert replies[0].fingerprint == replies[1].fingerprint
    enrolment.admit(replies[0].fingerprint, moment)
    assert enrolment.enrol("AT", requests[1], moment).status == EnrolReply.ADMITTED


def test_an_admitted_party_may_enrol_again_with_the_same_keys(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    who = Applicant()
    certificates = {admitted(enrolment, moment + n * SECOND, who).certificate for n in range(3)}
    assert len(certificates) == 3


@pytest.mark.parametrize("role", [Role.NODE, Role.OFFICER])
def test_no_party_is_admitted_with_a_key_of_another_country(
    enrolment: EnrolmentService, moment: datetime, role: Role
) -> None:
    statement_of = node_statement if role is Role.NODE else officer_statement
    mine = statement_of("AT")
    admitted(enrolment, moment, Applicant(mine), role)
    theirs = Applicant(mine.model_copy(update={"country": "BE"}))
    fingerprint = enrolment.enrol(
        "BE", theirs.request(invite(enrolment, moment, "BE", role)), moment
    ).fingerprint
    with pytest.raises(CoordinatorFault) as caught:
        enrolment.admit(fingerprint, moment)
    assert "a key of the" in caught.value.why
    assert "AT" in caught.value.why
    enrolment.refuse(fingerprint)


@pytest.mark.parametrize("half", [slice(0, 32), slice(32, 64)])
def test_no_party_is_admitted_with_half_a_key_of_another_country(
    enrolment: EnrolmentService, moment: datetime, half: slice
) -> None:
    """In a suite that uses only this half, the key would be the other country's."""
    mine, own = two_algorithm_key(1), bytearray(two_algorithm_key(2).to_bytes())
    own[half] = mine.to_bytes()[half]
    theirs = CompositeSigningKey.from_bytes(bytes(own)).public.to_text()
    admitted(
        enrolment,
        moment,
        Applicant(node_statement("AT", identity_key=mine.public.to_text())),
        Role.NODE,
    )
    asks = Applicant(node_statement("BE", identity_key=theirs))
    request = asks.request(invite(enrolment, moment, "BE", Role.NODE))
    with pytest.raises(CoordinatorFault, match="cannot be admitted"):
        enrolment.admit(enrolment.enrol("BE", request, moment).fingerprint, moment)


def test_a_comment_does_not_make_a_superlink_key_another_one(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    mine = node_statement("AT")
    admitted(enrolment, moment, Applicant(mine), Role.NODE)
    theirs = node_statement("BE", node_auth=f"{mine.node_auth} other@host")
    invitation = invite(enrolment, moment, "BE", Role.NODE)
    fingerprint = enrolment.enrol("BE", Applicant(theirs).request(invitation), moment).fingerprint
    with pytest.raises(CoordinatorFault):
        enrolment.admit(fingerprint, moment)


def test_the_newest_admitted_statement_of_a_country_counts(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    old, new = Applicant(node_statement()), Applicant(node_statement())
    admitted(enrolment, moment, old, Role.NODE)
    admitted(enrolment, moment + SECOND, new, Role.NODE)
    pending = Applicant(node_statement()).request(invite(enrolment, moment, role=Role.NODE))
    enrolment.enrol("AT", pending, moment + 2 * SECOND)
    assert enrolment.admitted(Role.NODE) == [new.statement]
    assert enrolment.admitted(Role.OFFICER) == []


def test_a_revocation_covers_every_certificate_of_the_role_and_lasts(
    enrolment: EnrolmentService,
    moment: datetime,
    engine: Engine,
    authority: TransportAuthority,
    tmp_path: Path,
) -> None:
    certificates = [
        admitted(enrolment, moment + n * SECOND, Applicant()).certificate for n in range(2)
    ]
    other = admitted(enrolment, moment, Applicant(officer_statement("BE"))).certificate
    node = admitted(enrolment, moment, Applicant(node_statement()), Role.NODE).certificate
    assert len(enrolment.revoke("AT", Role.OFFICER, moment)) == 2
    for known in (
        enrolment,
        enrolment_of(open_database(tmp_path / "state.db", MIGRATIONS), authority),
    ):
        for certificate in certificates:
            with pytest.raises(PratiqueError) as caught:
                _peer(certificate, authority, known, moment)
            assert "revoked" in caught.value.why
        for certificate in (other, node):
            _peer(certificate, authority, known, moment)
    with engine.connect() as connection:
        gone = connection.execute(select(parties.c.country, parties.c.role, parties.c.revoked))
        assert {(c, r) for c, r, when in gone if when is not None} == {("AT", "officer")}


def _peer(
    certificate: bytes, authority: TransportAuthority, known: EnrolmentService, moment: datetime
) -> None:
    root = authority.certificate_pem
    peer_of(certificate, authority_pem=root, now=moment, revoked=known.register._revoked)


def test_a_revocation_can_be_repeated_and_does_not_affect_the_next_certificate(
    enrolment: EnrolmentService, moment: datetime, authority: TransportAuthority
) -> None:
    admitted(enrolment, moment, Applicant())
    enrolment.revoke("AT", Role.OFFICER, moment)
    enrolment.revoke("AT", Role.OFFICER, moment)
    fresh = admitted(enrolment, moment + SECOND, Applicant()).certificate
    _peer(fresh, authority, enrolment, moment)


def test_revoking_a_party_that_does_not_exist_revokes_nothing(
    enrolment: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    enrolment.enrol("AT", Applicant().request(invitation), moment)
    assert list(enrolment.revoke("AT", Role.OFFICER, moment)) == []
    assert enrolment.register._revoked == frozenset()


def test_decisions_outlive_the_process(
    enrolment: EnrolmentService, moment: datetime, authority: TransportAuthority, tmp_path: Path
) -> None:
    who = Applicant()
    invitation = invite(enrolment, moment)
    request = who.request(invitation)
    fingerprint = enrolment.enrol("AT", request, moment).fingerprint
    again = enrolment_of(open_database(tmp_path / "state.db", MIGRATIONS), authority)
    assert again.admit(fingerprint, moment).status == ADMITTED
    assert [one.status for one in again.all()] == [ADMITTED]
    refused(again, Applicant().request(invitation), moment)
