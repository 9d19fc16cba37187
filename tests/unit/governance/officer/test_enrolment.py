import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from keys.certificates import Role, TransportAuthority, peer_of, public_pem
from keys.store import KeyStore
from protocols.proto.exchange_pb2 import EnrolReply
from protocols.wire.invitation import Statement, enrolment_fingerprint
from tests.support.documents import NOW
from tests.support.officers import AUTHORITY, PASSPHRASE, OfficerCommands, invitation, root_digest

STRANGER = TransportAuthority.create("elsewhere", NOW - timedelta(days=1))


def invitation_file(officer: OfficerCommands, **changes: Any) -> Path:
    return officer.file("invitation.json", invitation(**changes).model_dump_json())


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("governance.officer.enrolment.time.sleep", slept.append)
    return slept


def test_an_admitted_officer_keeps_its_certificate(officer: OfficerCommands) -> None:
    assert "You are admitted" in officer.done("enrol", invitation_file(officer))
    certificate = officer.home.certificate_file.read_bytes()
    peer = peer_of(
        certificate, authority_pem=AUTHORITY.certificate_pem, now=officer.now, revoked=()
    )
    settings = officer.home.settings()
    assert (peer.country, peer.role) == ("DK", Role.OFFICER)
    assert settings.exchange == "exchange.test:7443"
    assert settings.federation == "nordic-heart"


def test_the_fingerprint_is_that_of_the_request(officer: OfficerCommands) -> None:
    output = officer.done("enrol", invitation_file(officer))
    [request] = officer.exchange.asked
    statement = Statement.from_bytes(request.statement)
    stored_key = KeyStore.open(officer.home.keys, PASSPHRASE.encode()).get("transport-key")
    assert enrolment_fingerprint(request.transport_key, request.statement) in output
    assert request.transport_key == public_pem(stored_key)
    assert statement.document_key == officer.home.settings().document_key
    assert (statement.country, statement.role) == ("DK", "officer")
    assert request.token == bytes(range(32))


def test_digests_to_compare_are_shown(officer: OfficerCommands) -> None:
    output = officer.done("enrol", invitation_file(officer, root_digest="sha256:" + "a" * 64))
    assert AUTHORITY.digest in output
    assert "sha256:" + "a" * 64 in output
    assert officer.home.settings().root_digest == "sha256:" + "a" * 64


def test_a_pending_request_can_be_queried_again(officer: OfficerCommands) -> None:
    officer.exchange.enrolment = EnrolReply.PENDING
    assert "waits for the coordinator" in officer.done("enrol", invitation_file(officer))
    assert officer.home.settings().exchange is None
    officer.exchange.enrolment = EnrolReply.ADMITTED
    officer.done("enrol", invitation_file(officer))
    first, second = officer.exchange.asked
    assert first == second
    assert officer.home.settings().exchange is not None


def test_waiting_queries_every_second(officer: OfficerCommands, no_sleep: list[float]) -> None:
    officer.exchange.enrolment = EnrolReply.PENDING
    officer.done("enrol", invitation_file(officer), "--wait", "3")
    assert no_sleep == [1.0] * 3
    assert len(officer.exchange.asked) == 4


def test_waiting_ends_with_the_admission(
    officer: OfficerCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    officer.exchange.enrolment = EnrolReply.PENDING

    def admitted(_: float) -> None:
        officer.exchange.enrolment = EnrolReply.ADMITTED

    monkeypatch.setattr("governance.officer.enrolment.time.sleep", admitted)
    assert "You are admitted" in officer.done("enrol", invitation_file(officer), "--wait", "30")
    assert len(officer.exchange.asked) == 2


def test_a_refused_request_says_so(officer: OfficerCommands) -> None:
    officer.exchange.enrolment = EnrolReply.REFUSED
    result = officer.run("enrol", invitation_file(officer))
    assert result.exit_code == 1
    assert "refused your request" in result.stderr
    assert not officer.home.certificate_file.exists()


def test_prints_json_on_request(officer: OfficerCommands) -> None:
    officer.exchange.enrolment = EnrolReply.PENDING
    pending = json.loads(officer.run("enrol", invitation_file(officer), "--json").stdout)
    officer.exchange.enrolment = EnrolReply.ADMITTED
    admitted = json.loads(officer.run("enrol", invitation_file(officer), "--json").stdout)
    assert (pending["status"], admitted["status"]) == ("pending", "admitted")
    assert pending["fingerprint"] == admitted["fingerprint"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"country": "EE"}, "It is for the officer of EE"),
        ({"role": "node"}, "It is for the node of DK"),
        ({"expires": NOW}, "It expired on 2026-09-01"),
        ({"authority_digest": STRANGER.digest}, "authority does not have the digest"),
        ({"authority": STRANGER.certificate_pem.decode()}, "authority does not have the digest"),
    ],
)
def test_a_foreign_invitation_is_refused_before_anything_is_sent(
    officer: OfficerCommands, changes: dict[str, Any], why: str
) -> None:
    assert why in officer.refused("enrol", invitation_file(officer, **changes))
    assert officer.exchange.asked == []


def test_an_invitation_of_another_federation_is_refused(enrolled: OfficerCommands) -> None:
    output = enrolled.refused("enrol", invitation_file(enrolled, federation="elsewhere"))
    assert "you belong to nordic-heart" in output


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\x80\x04pickle", b"[" * 10**5])
def test_another_file_is_no_invitation(officer: OfficerCommands, content: bytes) -> None:
    assert "not an invitation" in officer.refused("enrol", officer.file("letter", content))


def test_a_file_that_is_not_there_is_named(officer: OfficerCommands) -> None:
    assert "cannot be read" in officer.refused("enrol", officer.folder / "none.json")


def test_the_same_request_is_sent_again_after_the_exchange_was_down(
    officer: OfficerCommands,
) -> None:
    officer.exchange.down = True
    result = officer.run("enrol", invitation_file(officer))
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert not officer.home.certificate_file.exists()
    stored_key = KeyStore.open(officer.home.keys, PASSPHRASE.encode()).get("transport-key-next")
    officer.exchange.down = False
    officer.done("enrol", invitation_file(officer))
    assert officer.exchange.asked[0].transport_key == public_pem(stored_key)


@pytest.mark.parametrize("whose", [("EE", Role.OFFICER), ("DK", Role.NODE)])
def test_another_party_s_certificate_is_not_kept(
    officer: OfficerCommands, whose: tuple[str, Role]
) -> None:
    officer.exchange.issued_to = whose
    result = officer.run("enrol", invitation_file(officer))
    assert result.exit_code == 1
    assert "not yours" in result.stderr
    assert not officer.home.certificate_file.exists()
    assert officer.home.settings().exchange is None


def test_a_new_invitation_keeps_the_root_digest_known_before(officer: OfficerCommands) -> None:
    officer.done("enrol", invitation_file(officer, root_digest="sha256:" + "a" * 64))
    officer.done("enrol", invitation_file(officer))
    assert officer.home.settings().root_digest == "sha256:" + "a" * 64


def test_an_officer_who_enrols_late_trusts_the_root_of_the_invitation(
    officer: OfficerCommands,
) -> None:
    officer.documents.publish_agreement()
    officer.done("enrol", invitation_file(officer, root_digest=root_digest(officer.documents)))
    assert "Nothing waits for you" in officer.done("inbox")


def test_settings_stay_readable_by_people(enrolled: OfficerCommands) -> None:
    content = yaml.safe_load(enrolled.home.settings_file.read_text())
    assert content["country"] == "DK"
    assert content["exchange"] == "exchange.test:7443"
