"""Invitations: listed with their state, used once, and over when they are revoked."""

from datetime import datetime, timedelta

import pytest

from keys.certificates import Role
from keys.errors import KeyFault
from protocols.errors import ProtocolFault
from protocols.wire.invitation import Invitation
from server.errors import CoordinatorFault
from server.membership.enrolment import EnrolmentService
from server.membership.invitations import EXPIRED, INVITATION_LIFETIME, OPEN, REVOKED, USED
from tests.support.enrolling import Applicant

SECOND = timedelta(seconds=1)


def invite(enrolment: EnrolmentService, moment: datetime, country: str = "AT") -> Invitation:
    return enrolment.invite(
        country, Role.OFFICER, exchange="127.0.0.1:1", root_digest=None, now=moment
    )


def states(enrolment: EnrolmentService, now: datetime) -> list[str]:
    return [invitation.status for invitation in enrolment.invitations.all(now)]


def test_each_invitation_is_listed_with_its_state(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    used = invite(enrolment, moment)
    invite(enrolment, moment + SECOND, "BE")
    enrolment.enrol("AT", Applicant().request(used), moment)
    end = moment + INVITATION_LIFETIME
    assert states(enrolment, moment) == [USED, OPEN]
    assert states(enrolment, end) == [USED, OPEN]
    assert states(enrolment, end + SECOND) == [USED, EXPIRED]
    first, second = enrolment.invitations.all(moment)
    assert (first.country, second.country) == ("AT", "BE")
    assert first.expires == used.expires == end


def test_a_revoked_invitation_allows_no_call_and_no_request(
    enrolment: EnrolmentService, moment: datetime
) -> None:
    revoked, other = invite(enrolment, moment), invite(enrolment, moment + SECOND, "BE")
    ended: list[frozenset[int]] = []
    enrolment.register.on_revoked(ended.append)
    certificate = revoked.certificate.encode()
    assert enrolment.register.peer(certificate, "Enrol", moment).country == "AT"
    identifier = enrolment.invitations.all(moment)[0].id
    enrolment.invitations.revoke(f" {identifier.upper()}", moment)
    assert states(enrolment, moment) == [REVOKED, OPEN]
    assert len(ended[0]) == 1
    with pytest.raises(KeyFault, match="revoked"):
        enrolment.register.peer(certificate, "Enrol", moment)
    with pytest.raises(ProtocolFault, match="not accepted"):
        enrolment.enrol("AT", Applicant().request(revoked), moment)
    assert enrolment.register.peer(other.certificate.encode(), "Enrol", moment).country == "BE"


@pytest.mark.parametrize("identifier", ["", "0", "%", "deadbeef0000"])
def test_an_unknown_id_revokes_nothing(
    enrolment: EnrolmentService, moment: datetime, identifier: str
) -> None:
    invite(enrolment, moment)
    with pytest.raises(CoordinatorFault, match="no invitation"):
        enrolment.invitations.revoke(identifier, moment)
    assert states(enrolment, moment) == [OPEN]


def test_a_second_revocation_is_refused(enrolment: EnrolmentService, moment: datetime) -> None:
    invite(enrolment, moment)
    (invitation,) = enrolment.invitations.all(moment)
    enrolment.invitations.revoke(invitation.id, moment)
    with pytest.raises(CoordinatorFault, match="to revoke"):
        enrolment.invitations.revoke(invitation.id, moment)
