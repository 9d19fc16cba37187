"""Admitted parties in the coordinator's status: revoked, renewed, and in dispute."""

from pathlib import Path

import pytest

from keys.certificates import new_transport_key, public_pem
from keys.renewal import renewal_proof
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import RenewRequest
from protocols.wire.invitation import Invitation
from server.errors import CoordinatorFault
from tests.support.coordinator_services import Coordinator
from tests.support.enrolling import Applicant, node_statement, officer_statement
from tests.support.node_federation import NodeFederation


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(NodeFederation(tmp_path / "federation"), tmp_path / "coordinator")


def enrolled(coordinator: Coordinator, who: Applicant) -> bytes:
    """Enrol and admit a party with the daemon's requests; return its certificate."""
    stated, enrolment = who.statement, coordinator.context.enrolment
    invited = coordinator.ask("invite", country=stated.country, role=stated.role)
    request = who.request(Invitation.model_validate(invited))
    reply = enrolment.enrol(stated.country, request, coordinator.clock())
    coordinator.ask("admit", fingerprint=reply.fingerprint)
    return enrolment.enrol(stated.country, request, coordinator.clock()).certificate


def renewed(coordinator: Coordinator, certificate: bytes) -> bytes:
    register, now, key = (
        coordinator.context.enrolment.register,
        coordinator.clock(),
        new_transport_key(),
    )
    peer = register.peer(certificate, "Renew", now)
    request = RenewRequest(public_key=public_pem(key), proof=renewal_proof(key, peer.serial))
    return register.renew(peer, request, now).certificate


def test_a_revoked_node_is_offline_and_shown_as_revoked(coordinator: Coordinator) -> None:
    enrolled(coordinator, Applicant(node_statement("DK")))
    coordinator.ask("revoke", country="DK", role="node")
    assert coordinator.ask("status")["nodes"]["DK"] is False
    assert [one["status"] for one in coordinator.ask("enrolments")] == ["revoked"]


def test_a_revocation_counts_the_renewed_certificates_too(coordinator: Coordinator) -> None:
    certificate = enrolled(coordinator, Applicant(officer_statement("DK")))
    renewed(coordinator, renewed(coordinator, certificate))
    assert coordinator.ask("revoke", country="DK", role="officer") == 3


def test_two_holders_of_a_certificate_are_shown_until_it_is_revoked(
    coordinator: Coordinator,
) -> None:
    certificate = enrolled(coordinator, Applicant(officer_statement("DK")))
    assert coordinator.ask("status")["disputes"] == []
    renewed(coordinator, certificate)
    with pytest.raises(ProtocolFault):
        renewed(coordinator, certificate)
    assert coordinator.ask("status")["disputes"] == ["DK officer"]
    assert [one["disputed"] for one in coordinator.ask("enrolments")] == ["yes"]
    coordinator.ask("revoke", country="DK", role="officer")
    assert coordinator.ask("status")["disputes"] == []


def test_invitations_are_listed_and_revoked_by_their_id(coordinator: Coordinator) -> None:
    coordinator.ask("invite", country="DK", role="officer")
    (listed,) = coordinator.ask("invitations")
    assert (listed["country"], listed["role"], listed["status"]) == ("DK", "officer", "open")
    assert coordinator.ask("revoke_invitation", identifier=listed["id"])["id"] == listed["id"]
    assert [one["status"] for one in coordinator.ask("invitations")] == ["revoked"]


@pytest.mark.parametrize(("code", "meant"), [("UK", "GB"), ("EL", "GR"), ("dk", "DK"), ("ZY", "")])
def test_only_codes_of_countries_are_invited(
    coordinator: Coordinator, code: str, meant: str
) -> None:
    with pytest.raises(CoordinatorFault, match="Nobody was invited") as caught:
        coordinator.ask("invite", country=code, role="officer")
    assert meant in caught.value.why
    assert coordinator.ask("invitations") == []
