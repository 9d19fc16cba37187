"""Invitations, admissions and revocations of the countries' nodes and officers."""

from governance.audit.events import EventKind, Outcome
from governance.documents.models import country_code
from governance.trust.layout import FIRST_ROOT
from keys.certificates import Role
from protocols.wire.encoding import digest
from protocols.wire.invitation import Invitation
from server.answers import EnrolmentSummary, ListedEnrolment, ListedInvitation
from server.errors import CoordinatorFault
from server.membership.enrolment import Enrolment
from server.membership.invitations import IssuedInvitation
from server.services.context import CoordinatorContext

INVITED_ROLES = {Role.NODE.value: Role.NODE, Role.OFFICER.value: Role.OFFICER}


class Parties:
    """Invites, admits and revokes."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context

    def invite(self, country: str, role: str) -> Invitation:
        """Return a new invitation for a country's node or officer."""
        _require_country(country)
        context, root = self._context, self._context.repository.read(FIRST_ROOT)
        if role == Role.NODE and root is None:
            raise CoordinatorFault(
                f"The node of {country} cannot be invited yet",
                why="an invitation to a node contains the digest of the signed root of trust",
                fix="ask the officers to sign the agreement first (`agreement status`)",
            )
        invitation = context.enrolment.invite(
            country,
            _role(role),
            exchange=context.settings.address,
            root_digest=digest(root) if root else None,
            now=context.clock(),
        )
        context.note(EventKind.PARTY_INVITED, subject=f"{country} {role}")
        return invitation

    def invitations(self) -> list[ListedInvitation]:
        """Return every invitation, oldest first."""
        issued = self._context.enrolment.invitations.all(self._context.clock())
        return [_listed(invitation) for invitation in issued]

    def revoke_invitation(self, identifier: str) -> ListedInvitation:
        """Revoke the invitation with this id; calls with its certificate end."""
        context = self._context
        revoked = context.enrolment.invitations.revoke(identifier, context.clock())
        subject = f"{revoked.country} {revoked.role} invitation {revoked.id}"
        context.note(EventKind.PARTY_REVOKED, subject=subject)
        return _listed(revoked)

    def enrolments(self) -> list[ListedEnrolment]:
        """Return every request for admission, and whether two parties hold its certificate."""
        disputes = self._context.enrolment.register.disputes()
        disputed = {(dispute.country, dispute.role) for dispute in disputes}
        return [
            ListedEnrolment(
                **dict(_summary(enrolment)),
                disputed="yes" if (enrolment.country, enrolment.role) in disputed else "",
            )
            for enrolment in self._context.enrolment.all()
        ]

    def admit(self, fingerprint: str) -> EnrolmentSummary:
        """Admit the pending request with this fingerprint."""
        context = self._context
        admitted = context.enrolment.admit(fingerprint, context.clock())
        if admitted.role is Role.NODE:
            context.sessions.open_session(admitted.statement)
        context.note(EventKind.PARTY_ADMITTED, subject=_subject(admitted))
        return _summary(admitted)

    def turn_away(self, fingerprint: str) -> None:
        """Refuse the pending request with this fingerprint."""
        self._context.enrolment.refuse(fingerprint)
        self._context.note(EventKind.PARTY_REFUSED, subject=fingerprint, outcome=Outcome.REFUSED)

    def revoke(self, country: str, role: str) -> int:
        """Revoke every certificate of a country's node or officer; return how many."""
        context = self._context
        serials = context.enrolment.revoke(country, _role(role), context.clock())
        if not serials:
            raise CoordinatorFault(
                f"{country} has no certificate as {role}",
                why="none was issued to it",
                fix="see `admit --list`",
            )
        if role == Role.NODE:
            context.sessions.mark_offline(country)
        context.note(EventKind.PARTY_REVOKED, subject=f"{country} {role}")
        return len(serials)


def _listed(invitation: IssuedInvitation) -> ListedInvitation:
    return ListedInvitation(
        id=invitation.id,
        country=invitation.country,
        role=invitation.role,
        status=invitation.status,
        expires=invitation.expires.isoformat(timespec="minutes"),
    )


def _require_country(code: str) -> None:
    try:
        country_code(code)
    except ValueError as error:
        raise CoordinatorFault(
            "Nobody was invited", why=str(error), fix="correct the country's code"
        ) from None


def _role(role: str) -> Role:
    if role not in INVITED_ROLES:
        raise CoordinatorFault(f"{role!r} is not a role", fix="use node or officer")
    return INVITED_ROLES[role]


def _subject(enrolment: Enrolment) -> str:
    return f"{enrolment.country} {enrolment.role} {enrolment.fingerprint}"


def _summary(enrolment: Enrolment) -> EnrolmentSummary:
    return EnrolmentSummary(
        country=enrolment.country,
        role=enrolment.role.value,
        fingerprint=enrolment.fingerprint,
        status=enrolment.status,
    )
