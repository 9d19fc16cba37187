"""How a node is admitted, and every invitation, certificate and root that it refuses."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.errors import NodeFault
from client.state.decision_log import log_origin
from client.state.tables import MIGRATIONS
from governance.audit.log import AuditLog, LogWriter
from governance.errors import StorageFault
from governance.runtime.database import open_database
from keys.certificates import Role, TransportAuthority, certificate_fingerprint, peer_of
from keys.errors import KeyFault
from protocols.proto.exchange_pb2 import EnrolReply
from protocols.wire.encoding import digest
from protocols.wire.invitation import Statement, enrolment_fingerprint
from tests.support.joining_node import (
    NOW,
    ROOT,
    WEEK,
    Newcomer,
    ScriptedExchange,
    create_joining_node,
    invitation,
    keyring,
)

FEDERATION = "nordic-heart"


@pytest.fixture
def authority() -> TransportAuthority:
    return TransportAuthority.create(FEDERATION, NOW)


@pytest.fixture
def newcomer(tmp_path: Path, authority: TransportAuthority) -> Newcomer:
    return Newcomer(create_joining_node(tmp_path), ScriptedExchange(authority))


def unchanged(newcomer: Newcomer) -> None:
    assert newcomer.home.settings().enrolment is None
    assert [entry["kind"] for entry in log_of(newcomer)] == ["node-initialised"]
    assert not newcomer.home.root.exists()
    assert not newcomer.home.certificate.exists()


def test_a_node_is_admitted(newcomer: Newcomer, authority: TransportAuthority) -> None:
    assert newcomer.enrol(invitation(authority))
    home, enrolment = newcomer.home, newcomer.home.settings().enrolment
    assert enrolment is not None
    assert (enrolment.federation, enrolment.root_digest) == (FEDERATION, digest(ROOT))
    assert home.root.read_bytes() == ROOT
    certificate = home.certificate.read_bytes()
    peer = peer_of(certificate, authority_pem=home.authority.read_bytes(), now=NOW, revoked=())
    assert (peer.country, peer.role) == ("DK", Role.NODE)


def log_of(newcomer: Newcomer) -> list[dict[str, Any]]:
    home = newcomer.home
    log = AuditLog(
        open_database(home.database, MIGRATIONS), log_origin("DK"), keyring(home).log_key
    )
    log.checkpoint()
    return [json.loads(entry) for entry in log.entries()]


def test_an_admission_is_logged_with_its_certificate(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.enrol(invitation(authority))
    create_joining_node, enrolled = log_of(newcomer)
    assert create_joining_node["kind"] == "node-initialised"
    assert (enrolled["kind"], enrolled["actor"]) == ("node-enrolled", "DK")
    assert enrolled["subject"] == certificate_fingerprint(newcomer.home.certificate.read_bytes())
    assert enrolled["reason"] == f"admitted to the federation {FEDERATION}"
    assert datetime.fromisoformat(enrolled["at"]) == NOW


def test_a_second_admission_is_logged_too(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.enrol(invitation(authority))
    newcomer.enrol(invitation(authority))
    first, second = (e["subject"] for e in log_of(newcomer) if e["kind"] == "node-enrolled")
    assert first != second


def test_a_node_whose_admission_cannot_be_logged_is_not_enrolled(
    newcomer: Newcomer, authority: TransportAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise StorageFault("The disk is full")

    monkeypatch.setattr(LogWriter, "append", full)
    with pytest.raises(StorageFault):
        newcomer.enrol(invitation(authority))
    assert newcomer.home.settings().enrolment is None
    assert not newcomer.home.certificate.exists()


def test_nothing_is_sent_if_the_log_cannot_be_opened(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    """An invitation serves only once."""
    newcomer.home.database.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageFault):
        newcomer.enrol(invitation(authority))
    assert newcomer.exchange.dialled == []
    assert not newcomer.home.certificate.exists()


def test_the_invitation_is_for_the_request_and_the_new_certificate_for_fetching_the_root(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    letter = invitation(authority)
    newcomer.enrol(letter)
    first, second = newcomer.exchange.dialled
    assert first == letter.certificate.encode()
    assert second == newcomer.home.certificate.read_bytes()
    assert newcomer.exchange.closed == 2


def test_the_request_states_the_public_keys_of_the_node(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    letter = invitation(authority)
    newcomer.enrol(letter)
    (request,) = newcomer.exchange.requests
    statement = Statement.from_bytes(request.statement)
    secrets = keyring(newcomer.home)
    assert statement.identity_key == secrets.identity.public.to_text()
    assert statement.country == "DK"
    assert request.token == letter.token_bytes()
    assert b"PRIVATE" not in request.SerializeToString()


def test_the_fingerprint_is_shown_before_anything_is_sent(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.enrol(invitation(authority))
    (introduction,), (request,) = newcomer.introductions, newcomer.exchange.requests
    assert introduction.fingerprint == enrolment_fingerprint(
        request.transport_key, request.statement
    )
    assert (introduction.authority_digest, introduction.root_digest) == (
        authority.digest,
        digest(ROOT),
    )


def test_a_request_waits_for_the_given_time(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.exchange.statuses = [EnrolReply.PENDING]
    assert not newcomer.enrol(invitation(authority), wait=3)
    assert newcomer.slept == [1.0, 1.0, 1.0]
    assert len({bytes(r.SerializeToString()) for r in newcomer.exchange.requests}) == 1
    unchanged(newcomer)


def test_a_waiting_request_is_admitted_later(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.exchange.statuses = [EnrolReply.PENDING, EnrolReply.PENDING, EnrolReply.ADMITTED]
    letter = invitation(authority)
    assert not newcomer.enrol(letter)
    assert newcomer.enrol(letter, wait=5)
    assert len({bytes(r.SerializeToString()) for r in newcomer.exchange.requests}) == 1


def test_a_refused_request_changes_nothing(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.exchange.statuses = [EnrolReply.REFUSED]
    with pytest.raises(NodeFault, match="refused the request"):
        newcomer.enrol(invitation(authority))
    unchanged(newcomer)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"country": "EE"}, "node of EE"),
        ({"role": "officer"}, "officer of DK"),
        ({"expires": NOW}, "expired"),
        ({"expires": NOW - WEEK}, "expired"),
        ({"authority_digest": digest(b"another")}, "transport authority"),
        ({"root_digest": None}, "root"),
    ],
    ids=["another country", "an officer's", "just expired", "expired", "authority", "no root"],
)
def test_an_invalid_invitation_is_refused(
    newcomer: Newcomer, authority: TransportAuthority, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(NodeFault) as fault:
        newcomer.enrol(invitation(authority, **changes))
    assert why in f"{fault.value.what} {fault.value.why}"
    assert "invitation" in fault.value.fix
    assert newcomer.exchange.requests == []
    assert newcomer.introductions == []
    unchanged(newcomer)


@pytest.mark.parametrize(
    ("country", "role"), [("EE", Role.NODE), ("DK", Role.OFFICER)], ids=["country", "role"]
)
def test_a_certificate_for_another_party_is_not_stored(
    newcomer: Newcomer, authority: TransportAuthority, country: str, role: Role
) -> None:
    newcomer.exchange.country, newcomer.exchange.role = country, role
    with pytest.raises(NodeFault, match="not for this node"):
        newcomer.enrol(invitation(authority))
    unchanged(newcomer)


def test_a_certificate_of_another_authority_is_not_stored(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.exchange.authority = TransportAuthority.create(FEDERATION, NOW)
    with pytest.raises(KeyFault, match="refused"):
        newcomer.enrol(invitation(authority))
    unchanged(newcomer)


@pytest.mark.parametrize("root", [None, b"", b"another root"])
def test_a_root_that_the_invitation_does_not_name_is_not_stored(
    newcomer: Newcomer, authority: TransportAuthority, root: bytes | None
) -> None:
    newcomer.exchange.root = root
    with pytest.raises(NodeFault, match="another root"):
        newcomer.enrol(invitation(authority))
    unchanged(newcomer)


def test_an_invitation_that_has_expired_by_the_clock_of_the_node_is_refused(
    newcomer: Newcomer, authority: TransportAuthority
) -> None:
    newcomer.clock = lambda: NOW + WEEK + timedelta(seconds=1)
    with pytest.raises(NodeFault, match="cannot be used"):
        newcomer.enrol(invitation(authority))
