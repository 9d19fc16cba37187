"""A certificate is renewed once, and two holders of its key are noticed."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from governance.audit.events import EventKind
from governance.runtime.database import open_database
from keys.certificates import Peer, Role, TransportAuthority, new_transport_key, public_pem
from keys.errors import KeyFault, PratiqueError
from keys.renewal import certified_key, renewal_proof, serial_of
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import EnrolReply, RenewReply, RenewRequest
from server.membership.certificates import (
    CERTIFICATE_LIFETIME,
    MAX_RENEWALS,
    SETTLING,
    UNUSED_FOR,
    CertificateRegister,
    Dispute,
    Renewer,
)
from server.membership.enrolment import EnrolmentService
from server.state.tables import MIGRATIONS
from tests.support.enrolling import (
    Applicant,
    Noted,
    enrolment_of,
    node_statement,
    officer_statement,
)

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
Found = dict[str, Peer | str]


@pytest.fixture
def noted() -> Noted:
    return []


@pytest.fixture
def enrolment(engine: Engine, authority: TransportAuthority, noted: Noted) -> EnrolmentService:
    return enrolment_of(engine, authority, noted=noted)


@pytest.fixture
def register(enrolment: EnrolmentService) -> CertificateRegister:
    return enrolment.register


def admitted_party(
    enrolment: EnrolmentService, moment: datetime, country: str = "AT", role: Role = Role.NODE
) -> bytes:
    """Enrol and admit a party; return its certificate."""
    statement = node_statement(country) if role is Role.NODE else officer_statement(country)
    invitation = enrolment.invite(country, role, exchange="x:1", root_digest=None, now=moment)
    request = Applicant(statement).request(invitation)
    enrolment.admit(enrolment.enrol(country, request, moment).fingerprint, moment)
    return enrolment.enrol(country, request, moment).certificate


def asked(certificate: bytes, key: bytes) -> RenewRequest:
    proof = renewal_proof(key, serial_of(certificate))
    return RenewRequest(public_key=public_pem(key), proof=proof)


def renewed(
    register: CertificateRegister, certificate: bytes, now: datetime, key: bytes | None = None
) -> RenewReply:
    """Renew as the exchange does: the certificate names the caller."""
    peer = register.peer(certificate, "Renew", now)
    return register.renew(peer, asked(certificate, key or new_transport_key()), now)


def works(register: CertificateRegister, certificate: bytes, now: datetime) -> bool:
    try:
        register.peer(certificate, "Fetch", now)
    except KeyFault:
        return False
    return True


@pytest.mark.parametrize("role", [Role.NODE, Role.OFFICER])
def test_a_party_gets_the_next_certificate_for_itself_and_its_new_key(
    enrolment: EnrolmentService,
    register: CertificateRegister,
    moment: datetime,
    role: Role,
    noted: Noted,
) -> None:
    old, key = admitted_party(enrolment, moment, role=role), new_transport_key()
    now = moment + 60 * DAY
    renewal = renewed(register, old, now, key)
    peer = register.peer(renewal.certificate, "Fetch", now)
    assert (peer.federation, peer.country, peer.role) == ("danube", "AT", role)
    assert peer.not_after == (now + CERTIFICATE_LIFETIME).replace(microsecond=0)
    assert certified_key(renewal.certificate) == public_pem(key)
    assert renewal.authority == register.authorities.trusted(now)
    assert renewal.succession == b""
    assert noted == [(EventKind.CERTIFICATE_RENEWED, f"AT {role}")]


def test_a_lost_reply_is_sent_again_even_after_a_restart(
    enrolment: EnrolmentService,
    register: CertificateRegister,
    moment: datetime,
    authority: TransportAuthority,
    tmp_path: Path,
    noted: Noted,
) -> None:
    old, key = admitted_party(enrolment, moment), new_transport_key()
    first = renewed(register, old, moment, key)
    assert renewed(register, old, moment + DAY, key) == first
    again = enrolment_of(open_database(tmp_path / "state.db", MIGRATIONS), authority).register
    assert renewed(again, old, moment + 20 * DAY, key) == first
    assert len(noted) == 1


def test_the_old_certificate_is_fully_valid_for_a_day_while_the_new_one_is_unused(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    old, key = admitted_party(enrolment, moment), new_transport_key()
    new = renewed(register, old, moment, key).certificate
    assert works(register, old, moment + UNUSED_FOR - SECOND)
    assert not works(register, old, moment + UNUSED_FOR)
    assert renewed(register, old, moment + 30 * DAY, key).certificate == new
    assert works(register, new, moment + 30 * DAY)
    assert register.disputes() == []  # a reply was lost; no key was stolen


def test_the_old_certificate_ends_once_the_new_one_is_used(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    old, key = admitted_party(enrolment, moment), new_transport_key()
    new = renewed(register, old, moment, key).certificate
    assert works(register, new, moment + SECOND)
    assert works(register, old, moment + SETTLING)
    late = moment + SECOND + SETTLING
    assert not works(register, old, late)
    with pytest.raises(KeyFault, match="refused"):
        renewed(register, old, late, key)
    assert works(register, new, late)


def test_a_certificate_that_has_ended_stays_ended_after_a_restart(
    enrolment: EnrolmentService,
    register: CertificateRegister,
    moment: datetime,
    authority: TransportAuthority,
    tmp_path: Path,
) -> None:
    old = admitted_party(enrolment, moment)
    new = renewed(register, old, moment).certificate
    assert works(register, new, moment)
    again = enrolment_of(open_database(tmp_path / "state.db", MIGRATIONS), authority).register
    assert not works(again, old, moment + DAY)
    assert works(again, new, moment + DAY)


def test_the_second_holder_of_a_stolen_key_is_refused_and_shown(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    old, mine = admitted_party(enrolment, moment), new_transport_key()
    first = renewed(register, old, moment, mine)
    with pytest.raises(ProtocolFault, match="with another key") as caught:
        renewed(register, old, moment + SECOND)
    assert "coordinator" in caught.value.fix
    assert renewed(register, old, moment + SECOND, mine) == first
    assert register.disputes() == [Dispute("AT", "node", moment + SECOND)]
    assert (EventKind.CERTIFICATE_DISPUTED, "AT node") in noted


def test_the_use_of_a_replaced_certificate_is_reported_once(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    """The thief renewed first: the rightful holder's next call shows it."""
    old = admitted_party(enrolment, moment)
    works(register, renewed(register, old, moment).certificate, moment)
    for hour in range(1, 50):
        assert not works(register, old, moment + timedelta(hours=hour))
    assert [kind for kind, _ in noted].count(EventKind.CERTIFICATE_DISPUTED) == 1
    assert len(register.disputes()) == 1


def test_a_dispute_is_over_once_the_party_is_revoked(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    old = admitted_party(enrolment, moment)
    new = renewed(register, old, moment).certificate
    with pytest.raises(ProtocolFault):
        renewed(register, old, moment)
    assert len(enrolment.revoke("AT", Role.NODE, moment)) == 2
    assert register.disputes() == []
    for certificate in (old, new):
        assert not works(register, certificate, moment)
        with pytest.raises(KeyFault, match="refused"):
            renewed(register, certificate, moment)


def test_a_proof_of_another_party_is_refused(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    """A captured request renews no certificate if another party sends it."""
    mine, theirs = admitted_party(enrolment, moment), admitted_party(enrolment, moment, "BE")
    captured = asked(mine, new_transport_key())
    peer = register.peer(theirs, "Renew", moment)
    with pytest.raises(KeyFault, match="holder of the new key"):
        register.renew(peer, captured, moment)
    assert noted == []


def test_a_request_for_the_next_certificate_is_not_valid_for_the_one_after(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    old, key = admitted_party(enrolment, moment), new_transport_key()
    request = asked(old, key)
    new = renewed(register, old, moment, key).certificate
    with pytest.raises(KeyFault, match="holder of the new key"):
        register.renew(register.peer(new, "Renew", moment), request, moment)


def test_a_party_revoked_just_after_its_authorisation_gets_nothing(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    old = admitted_party(enrolment, moment)
    peer = register.peer(old, "Renew", moment)
    enrolment.revoke("AT", Role.NODE, moment)
    with pytest.raises(KeyFault) as caught:
        register.renew(peer, asked(old, new_transport_key()), moment)
    assert "revoked" in caught.value.why
    assert noted == []


def test_a_party_that_renews_too_often_must_wait(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    certificate, other = admitted_party(enrolment, moment), admitted_party(enrolment, moment, "BE")
    for _ in range(MAX_RENEWALS):
        certificate = renewed(register, certificate, moment).certificate
    with pytest.raises(ProtocolFault, match="cannot be renewed now") as caught:
        renewed(register, certificate, moment + DAY - SECOND)
    assert "wait a day" in caught.value.fix
    assert renewed(register, other, moment).certificate
    assert renewed(register, certificate, moment + DAY).certificate


def test_a_certificate_never_outlives_its_authority(engine: Engine, moment: datetime) -> None:
    ending = TransportAuthority.create("danube", moment - 3610 * DAY)
    enrolment = enrolment_of(engine, ending)
    new = renewed(enrolment.register, admitted_party(enrolment, moment), moment).certificate
    assert enrolment.register.peer(new, "Fetch", moment).not_after <= ending.ends


def test_a_newly_admitted_node_replaces_the_old_one(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    first = admitted_party(enrolment, moment)
    second = renewed(register, first, moment).certificate
    assert works(register, second, moment)
    third = admitted_party(enrolment, moment + DAY)
    assert works(register, second, moment + DAY)  # until the node has fetched the new one
    with pytest.raises(KeyFault, match="refused"):
        renewed(register, second, moment + DAY)
    assert works(register, third, moment + DAY)
    assert not works(register, second, moment + DAY + SETTLING)
    assert register.disputes() == []


def test_a_country_may_have_several_officers(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    certificates = [
        admitted_party(enrolment, moment + n * SECOND, role=Role.OFFICER) for n in range(2)
    ]
    assert all(works(register, one, moment + 2 * DAY) for one in certificates)


def test_a_revocation_notifies_the_listeners(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    notified: list[frozenset[int]] = []
    certificate, other = admitted_party(enrolment, moment), admitted_party(enrolment, moment, "BE")
    register.on_revoked(notified.append)
    enrolment.revoke("AT", Role.NODE, moment)
    assert notified == [frozenset({serial_of(certificate)})]
    assert not works(register, certificate, moment)
    assert works(register, other, moment)


def test_a_revoked_party_gets_this_status_from_its_enrolment(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    who = Applicant(node_statement())
    request = who.request(
        enrolment.invite("AT", Role.NODE, exchange="x:1", root_digest=None, now=moment)
    )
    enrolment.admit(enrolment.enrol("AT", request, moment).fingerprint, moment)
    enrolment.revoke("AT", Role.NODE, moment)
    reply = enrolment.enrol("AT", request, moment)
    assert (reply.status, reply.certificate) == (EnrolReply.REFUSED, b"")
    assert [one.status for one in enrolment.all()] == ["revoked"]
    assert enrolment.admitted(Role.NODE) == []


WRONG: dict[str, Callable[[bytes], RenewRequest]] = {
    "nothing": lambda _: RenewRequest(),
    "no proof": lambda c: RenewRequest(public_key=asked(c, new_transport_key()).public_key),
    "its old key's private half": lambda _: RenewRequest(public_key=new_transport_key()),
    "oversized": lambda c: RenewRequest(
        public_key=asked(c, new_transport_key()).public_key + b"#" * 17_000, proof=b"x"
    ),
}


@pytest.mark.parametrize("request_of", WRONG.values(), ids=WRONG.keys())
def test_an_invalid_request_changes_nothing(
    enrolment: EnrolmentService,
    register: CertificateRegister,
    moment: datetime,
    request_of: Callable[[bytes], RenewRequest],
) -> None:
    old = admitted_party(enrolment, moment)
    with pytest.raises(PratiqueError):
        register.renew(register.peer(old, "Renew", moment), request_of(old), moment)
    assert renewed(register, old, moment).certificate


def test_a_caller_that_does_not_act_for_its_node_gets_only_what_was_issued(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    old, key, other = admitted_party(enrolment, moment), new_transport_key(), Renewer(acts=False)
    peer = register.peer(old, "Renew", moment)
    with pytest.raises(ProtocolFault, match="does not act for the node"):
        register.renew(peer, asked(old, key), moment, other)
    assert noted == []
    assert works(register, old, moment + DAY)
    first = renewed(register, old, moment, key)
    assert register.renew(peer, asked(old, key), moment, other) == first  # its reply was lost
    assert works(register, old, moment + SECOND)


def acted(country: str) -> bool:
    """A process that runs, and that acted for the node of AT."""
    return country == "AT"


def test_a_running_node_keeps_the_certificate_that_another_machine_replaced(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    old = admitted_party(enrolment, moment)
    new = renewed(register, old, moment).certificate
    assert works(register, new, moment)
    later = moment + DAY
    assert not works(register, old, later)
    assert register.peer(old, "Relay", later, acted).country == "AT"
    assert works(register, old, later)  # of its next process as well
    assert works(register, new, later)
    assert noted.count((EventKind.CERTIFICATE_DISPUTED, "AT node")) == 1
    with pytest.raises(ProtocolFault, match="with another key"):
        renewed(register, old, later)
    register._load()
    assert works(register, old, later)
    assert len(enrolment.revoke("AT", Role.NODE, later)) == 2
    assert not works(register, old, later)
    assert not works(register, new, later)


def test_a_node_that_could_not_store_its_new_certificate_works_on_and_is_no_dispute(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime, noted: Noted
) -> None:
    old, key = admitted_party(enrolment, moment), new_transport_key()
    new = renewed(register, old, moment, key).certificate
    late = moment + UNUSED_FOR
    assert register.peer(old, "Relay", late, acted).country == "AT"
    assert not works(register, old, late)  # of another process
    assert renewed(register, old, late, key).certificate == new
    assert works(register, new, late)
    assert (EventKind.CERTIFICATE_DISPUTED, "AT node") not in noted
    assert not works(register, old, late + SETTLING)


def test_in_a_dispute_a_certificate_whose_successor_is_unused_is_kept_as_well(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    """The successor may be another machine's, which keeps it unused until the node restarts."""
    old = admitted_party(enrolment, moment)
    renewed(register, old, moment)
    late = moment + UNUSED_FOR
    register.peer(old, "Relay", late, acted, disputed=acted)
    assert works(register, old, late)


def test_a_dispute_that_could_not_be_logged_is_repeated(
    enrolment: EnrolmentService,
    register: CertificateRegister,
    moment: datetime,
    noted: Noted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = admitted_party(enrolment, moment)
    assert works(register, renewed(register, old, moment).certificate, moment)
    later = moment + DAY

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(register, "_note", full)
        with pytest.raises(OSError, match="no space"):
            register.peer(old, "Relay", later, acted)
    register.peer(old, "Relay", later, acted)
    assert noted.count((EventKind.CERTIFICATE_DISPUTED, "AT node")) == 1
    assert len(register.disputes()) == 1


@pytest.mark.parametrize(("role", "country"), [(Role.OFFICER, "AT"), (Role.NODE, "BE")])
def test_only_a_node_that_acted_keeps_a_replaced_certificate(
    enrolment: EnrolmentService,
    register: CertificateRegister,
    moment: datetime,
    role: Role,
    country: str,
) -> None:
    old = admitted_party(enrolment, moment, country, role)
    assert works(register, renewed(register, old, moment).certificate, moment)
    with pytest.raises(KeyFault, match="refused"):
        register.peer(old, "Fetch", moment + DAY, acted)


def test_a_renewal_in_a_dispute_does_not_end_the_old_certificate(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    old, key = admitted_party(enrolment, moment), new_transport_key()
    peer = register.peer(old, "Renew", moment)
    new = register.renew(peer, asked(old, key), moment, Renewer(disputed=True)).certificate
    assert works(register, new, moment)
    assert works(register, old, moment + DAY)
    with pytest.raises(KeyFault, match="expired"):
        register.peer(old, "Fetch", moment + CERTIFICATE_LIFETIME + DAY)


def test_a_new_admission_ends_certificates_that_were_kept(
    enrolment: EnrolmentService, register: CertificateRegister, moment: datetime
) -> None:
    old = admitted_party(enrolment, moment)
    new = renewed(register, old, moment).certificate
    works(register, new, moment)
    register.peer(old, "Relay", moment + DAY, acted)
    third = admitted_party(enrolment, moment + DAY)
    assert works(register, old, moment + DAY)  # until the node has fetched the new one
    assert works(register, third, moment + DAY)
    late = moment + DAY + SETTLING
    assert not works(register, old, late)
    assert not works(register, new, late)
    with pytest.raises(KeyFault, match="refused"):
        register.peer(old, "Relay", late, acted)
    assert register.disputes() == []
    assert len(enrolment.revoke("AT", Role.NODE, late)) == 3
