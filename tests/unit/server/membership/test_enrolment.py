"""Who is let in, by whom, once; and who is not."""

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
from server.errors import OperationFault
from server.membership.certificates import CERTIFICATE_LIFETIME
from server.membership.enrolment import (
    ADMITTED,
    INVITATION_LIFETIME,
    PENDING,
    REFUSED,
    EnrolmentService,
)
from server.state.tables import MIGRATIONS, invitations, parties
from tests.support.documents import both_key
from tests.support.enrolling import Applicant, desk_of, node_statement, officer_statement

SECOND = timedelta(seconds=1)


@pytest.fixture
def invitation(desk: EnrolmentService, moment: datetime) -> Invitation:
    return invite(desk, moment)


def invite(
    desk: EnrolmentService, moment: datetime, country: str = "AT", role: Role = Role.OFFICER
) -> Invitation:
    return desk.invite(country, role, exchange="127.0.0.1:1", root_digest=None, now=moment)


def admitted(
    desk: EnrolmentService, moment: datetime, who: Applicant, role: Role = Role.OFFICER
) -> EnrolReply:
    country = who.statement.country
    request = who.request(invite(desk, moment, country, role))
    desk.admit(desk.enrol(country, request, moment).fingerprint, moment)
    return desk.enrol(country, request, moment)


def refused(
    desk: EnrolmentService, request: EnrolRequest, moment: datetime, country: str = "AT"
) -> ProtocolFault:
    before = desk.all()
    with pytest.raises(ProtocolFault) as caught:
        desk.enrol(country, request, moment)
    assert desk.all() == before
    return caught.value


def test_an_invited_party_is_pending_then_admitted(
    desk: EnrolmentService, invitation: Invitation, moment: datetime, authority: TransportAuthority
) -> None:
    who = Applicant()
    request = who.request(invitation)
    first = desk.enrol("AT", request, moment)
    assert (first.status, first.certificate) == (EnrolReply.PENDING, b"")
    assert first.fingerprint == enrolment_fingerprint(request.transport_key, request.statement)
    assert desk.enrol("AT", request, moment) == first
    desk.admit(first.fingerprint, moment)
    reply = desk.enrol("AT", request, moment)
    assert reply.status == EnrolReply.ADMITTED
    peer = peer_of(
        reply.certificate, authority_pem=authority.certificate_pem, now=moment, revoked=()
    )
    assert (peer.country, peer.role, peer.federation) == ("AT", Role.OFFICER, "danube")
    assert peer.not_after <= moment + CERTIFICATE_LIFETIME


def test_the_certificate_is_for_the_key_that_was_asked_for(
    desk: EnrolmentService, moment: datetime
) -> None:
    from cryptography import x509  # noqa: PLC0415 (used here only)

    who = Applicant()
    certificate = x509.load_pem_x509_certificate(admitted(desk, moment, who).certificate)
    held = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert held == public_pem(who.key)


def test_the_invitation_s_own_certificate_may_only_enrol(
    invitation: Invitation, moment: datetime, authority: TransportAuthority
) -> None:
    presented = invitation.certificate.encode()
    peer = peer_of(presented, authority_pem=authority.certificate_pem, now=moment, revoked=())
    assert (peer.country, peer.role) == ("AT", Role.ENROLMENT)
    assert peer.not_after <= moment + INVITATION_LIFETIME
    assert certificate_fingerprint(invitation.authority.encode()) == invitation.authority_digest


def test_a_token_is_not_kept(invitation: Invitation, engine: Engine, tmp_path: Path) -> None:
    with engine.connect() as connection:
        row = connection.execute(select(invitations)).one()
    assert row.used is None
    assert invitation.token not in str(row)
    for file in tmp_path.iterdir():
        assert invitation.token_bytes() not in file.read_bytes()


def test_another_request_with_the_same_token_is_refused(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    desk.enrol("AT", Applicant().request(invitation), moment)
    fault = refused(desk, Applicant().request(invitation), moment)
    assert "used already" in fault.why


@pytest.mark.parametrize("part", ["transport_key", "statement"])
def test_a_changed_request_with_the_same_token_is_refused(
    desk: EnrolmentService, invitation: Invitation, moment: datetime, part: str
) -> None:
    who, other = Applicant(), Applicant()
    desk.enrol("AT", who.request(invitation), moment)
    theirs = getattr(other.request(invitation), part)
    refused(desk, who.request(invitation, **{part: theirs}), moment)


def test_unknown_fields_make_another_request(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    request = Applicant().request(invitation)
    desk.enrol("AT", request, moment)
    padded = EnrolRequest.FromString(request.SerializeToString() + b"\x7a\x01x")
    refused(desk, padded, moment)


def test_a_token_serves_after_a_refused_try(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(desk, Applicant(officer_statement("BE")).request(invitation), moment)
    refused(desk, Applicant().request(invitation, transport_key=b"junk"), moment)
    assert desk.enrol("AT", Applicant().request(invitation), moment).status == EnrolReply.PENDING


def test_a_token_for_another_country_is_refused(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(desk, Applicant(officer_statement("BE")).request(invitation), moment, "BE")


def test_a_statement_for_another_country_than_the_caller_s_is_refused(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(desk, Applicant(officer_statement("BE")).request(invitation), moment, "AT")
    refused(desk, Applicant(officer_statement("AT")).request(invitation), moment, "BE")


def test_a_token_for_another_role_is_refused(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    refused(desk, Applicant(node_statement()).request(invitation), moment)


def test_a_token_that_nobody_gave_out_is_refused(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    for token in (b"", bytes(32), invitation.token_bytes()[:-1], invitation.token_bytes() + b"\0"):
        refused(desk, Applicant().request(invitation, token=token), moment)


def test_an_invitation_ends_to_the_second(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    end = moment + INVITATION_LIFETIME
    refused(desk, Applicant().request(invitation), end)
    assert desk.enrol("AT", Applicant().request(invitation), end - SECOND).status


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
    desk: EnrolmentService, invitation: Invitation, moment: datetime, key: bytes
) -> None:
    fault = refused(desk, Applicant().request(invitation, transport_key=key), moment)
    assert "transport key" in fault.why


def line(key: object) -> str:
    public = key.public_key()  # type: ignore[attr-defined]
    return str(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


@pytest.mark.parametrize(
    "auth",
    [
        "",
        "junk",
        "ssh-rsa AAAA",
        line(Ed25519PrivateKey.generate()),
        line(ec.generate_private_key(ec.SECP521R1())),
        line(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "junk", "cut", "Ed25519", "P-521", "RSA"],
)
def test_a_node_whose_superlink_key_is_unusable_is_refused_at_once(
    desk: EnrolmentService, moment: datetime, auth: str
) -> None:
    """Admitted, it would keep the coordinator from starting."""
    invitation = invite(desk, moment, role=Role.NODE)
    fault = refused(desk, Applicant(node_statement(node_auth=auth)).request(invitation), moment)
    assert "SuperLink key" in fault.why


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(statement=st.binary(max_size=200), key=st.binary(max_size=200), token=st.binary(max_size=40))
def test_a_stranger_s_bytes_are_refused_in_plain_words(
    desk: EnrolmentService, moment: datetime, statement: bytes, key: bytes, token: bytes
) -> None:
    request = EnrolRequest(token=token, transport_key=key, statement=statement)
    refused(desk, request, moment)


@pytest.mark.parametrize("fingerprint", ["", "abcd-efgh", "%", "' or 1=1 --"])
def test_a_wrong_fingerprint_admits_nobody(
    desk: EnrolmentService, invitation: Invitation, moment: datetime, fingerprint: str
) -> None:
    desk.enrol("AT", Applicant().request(invitation), moment)
    with pytest.raises(OperationFault) as caught:
        desk.admit(fingerprint, moment)
    assert "waits for approval" in caught.value.what
    assert caught.value.why
    assert "admit --list" in caught.value.fix
    assert [one.status for one in desk.all()] == [PENDING]


def test_a_part_of_a_fingerprint_admits_nobody(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    whole = desk.enrol("AT", Applicant().request(invitation), moment).fingerprint
    for part in (whole[:-1], whole[1:], whole.replace("-", "")):
        with pytest.raises(OperationFault):
            desk.admit(part, moment)


def test_a_fingerprint_is_read_as_people_type_it(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    shown = desk.enrol("AT", Applicant().request(invitation), moment).fingerprint
    assert desk.admit(f"  {shown.upper()}\n", moment).country == "AT"


def test_nobody_is_admitted_twice_or_after_a_refusal(
    desk: EnrolmentService, moment: datetime
) -> None:
    for decide in (lambda shown: desk.admit(shown, moment), desk.refuse):
        shown = desk.enrol("AT", Applicant().request(invite(desk, moment)), moment).fingerprint
        decide(shown)
        with pytest.raises(OperationFault):
            desk.admit(shown, moment)
        with pytest.raises(OperationFault):
            desk.refuse(shown)


def test_a_refused_party_is_told_and_gets_nothing(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    request = Applicant().request(invitation)
    desk.refuse(desk.enrol("AT", request, moment).fingerprint)
    reply = desk.enrol("AT", request, moment)
    assert (reply.status, reply.certificate) == (EnrolReply.REFUSED, b"")
    assert [one.status for one in desk.all()] == [REFUSED]


def test_a_party_that_was_invited_twice_with_the_same_keys_can_be_admitted(
    desk: EnrolmentService, moment: datetime
) -> None:
    who = Applicant()
    requests = [who.request(invite(desk, moment)) for _ in range(2)]
    replies = [desk.enrol("AT", one, moment + n * SECOND) for n, one in enumerate(requests)]
    assert replies[0].fingerprint == replies[1].fingerprint
    desk.admit(replies[0].fingerprint, moment)
    assert desk.enrol("AT", requests[1], moment).status == EnrolReply.ADMITTED


def test_a_party_that_was_admitted_may_come_again_with_the_same_keys(
    desk: EnrolmentService, moment: datetime
) -> None:
    who = Applicant()
    certificates = {admitted(desk, moment + n * SECOND, who).certificate for n in range(3)}
    assert len(certificates) == 3


@pytest.mark.parametrize("role", [Role.NODE, Role.OFFICER])
def test_no_party_is_admitted_with_a_key_of_another_country(
    desk: EnrolmentService, moment: datetime, role: Role
) -> None:
    made = node_statement if role is Role.NODE else officer_statement
    mine = made("AT")
    admitted(desk, moment, Applicant(mine), role)
    theirs = Applicant(mine.model_copy(update={"country": "BE"}))
    shown = desk.enrol("BE", theirs.request(invite(desk, moment, "BE", role)), moment).fingerprint
    with pytest.raises(OperationFault) as caught:
        desk.admit(shown, moment)
    assert "a key of the" in caught.value.why
    assert "AT" in caught.value.why
    desk.refuse(shown)


@pytest.mark.parametrize("half", [slice(0, 32), slice(32, 64)])
def test_no_party_is_admitted_with_half_a_key_of_another_country(
    desk: EnrolmentService, moment: datetime, half: slice
) -> None:
    """Beside a half of its own: under an agreement that asks for one it would be another's key."""
    mine, own = both_key(1), bytearray(both_key(2).to_bytes())
    own[half] = mine.to_bytes()[half]
    theirs = CompositeSigningKey.from_bytes(bytes(own)).public.to_text()
    admitted(
        desk,
        moment,
        Applicant(node_statement("AT", identity_key=mine.public.to_text())),
        Role.NODE,
    )
    asks = Applicant(node_statement("BE", identity_key=theirs))
    request = asks.request(invite(desk, moment, "BE", Role.NODE))
    with pytest.raises(OperationFault, match="cannot be admitted"):
        desk.admit(desk.enrol("BE", request, moment).fingerprint, moment)


def test_a_comment_does_not_make_a_superlink_key_another_one(
    desk: EnrolmentService, moment: datetime
) -> None:
    mine = node_statement("AT")
    admitted(desk, moment, Applicant(mine), Role.NODE)
    theirs = node_statement("BE", node_auth=f"{mine.node_auth} other@host")
    invitation = invite(desk, moment, "BE", Role.NODE)
    shown = desk.enrol("BE", Applicant(theirs).request(invitation), moment).fingerprint
    with pytest.raises(OperationFault):
        desk.admit(shown, moment)


def test_the_newest_admitted_statement_of_a_country_counts(
    desk: EnrolmentService, moment: datetime
) -> None:
    old, new = Applicant(node_statement()), Applicant(node_statement())
    admitted(desk, moment, old, Role.NODE)
    admitted(desk, moment + SECOND, new, Role.NODE)
    pending = Applicant(node_statement()).request(invite(desk, moment, role=Role.NODE))
    desk.enrol("AT", pending, moment + 2 * SECOND)
    assert desk.admitted(Role.NODE) == [new.statement]
    assert desk.admitted(Role.OFFICER) == []


def test_revocation_names_every_certificate_of_the_role_and_lasts(
    desk: EnrolmentService,
    moment: datetime,
    engine: Engine,
    authority: TransportAuthority,
    tmp_path: Path,
) -> None:
    held = [admitted(desk, moment + n * SECOND, Applicant()).certificate for n in range(2)]
    other = admitted(desk, moment, Applicant(officer_statement("BE"))).certificate
    node = admitted(desk, moment, Applicant(node_statement()), Role.NODE).certificate
    assert len(desk.revoke("AT", Role.OFFICER, moment)) == 2
    for known in (desk, desk_of(open_database(tmp_path / "state.db", MIGRATIONS), authority)):
        for certificate in held:
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
    peer_of(certificate, authority_pem=root, now=moment, revoked=known.register.revoked())


def test_revocation_can_be_repeated_and_does_not_bind_the_next_certificate(
    desk: EnrolmentService, moment: datetime, authority: TransportAuthority
) -> None:
    admitted(desk, moment, Applicant())
    desk.revoke("AT", Role.OFFICER, moment)
    desk.revoke("AT", Role.OFFICER, moment)
    fresh = admitted(desk, moment + SECOND, Applicant()).certificate
    _peer(fresh, authority, desk, moment)


def test_revoking_where_there_is_nobody_revokes_nothing(
    desk: EnrolmentService, invitation: Invitation, moment: datetime
) -> None:
    desk.enrol("AT", Applicant().request(invitation), moment)
    assert list(desk.revoke("AT", Role.OFFICER, moment)) == []
    assert desk.register.revoked() == frozenset()


def test_what_was_decided_outlives_the_process(
    desk: EnrolmentService, moment: datetime, authority: TransportAuthority, tmp_path: Path
) -> None:
    who = Applicant()
    invitation = invite(desk, moment)
    request = who.request(invitation)
    shown = desk.enrol("AT", request, moment).fingerprint
    again = desk_of(open_database(tmp_path / "state.db", MIGRATIONS), authority)
    assert again.admit(shown, moment).status == ADMITTED
    assert [one.status for one in again.all()] == [ADMITTED]
    refused(again, Applicant().request(invitation), moment)
