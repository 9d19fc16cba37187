"""Who is let in: invitations, admissions, revocations."""

from typing import Any

from governance.audit.events import EventKind, Outcome
from keys.certificates import Role
from protocols.wire.encoding import digest
from server.errors import OperationFault
from server.membership.enrolment import Enrolment
from server.published_view import FIRST_ROOT
from server.services.context import CoordinatorContext

INVITED = {Role.NODE.value: Role.NODE, Role.OFFICER.value: Role.OFFICER}


class Parties:
    """Invites, admits and revokes."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context

    def invite(self, country: str, role: str) -> dict[str, Any]:
        """Return a new invitation for a country's node or officer."""
        context, root = self._context, self._context.repository.read(FIRST_ROOT)
        if role == Role.NODE and root is None:
            raise OperationFault(
                f"The node of {country} cannot be invited yet",
                why="an invitation to a node carries the digest of the signed root of trust",
                fix="let the officers sign the agreement first (`agreement status`)",
            )
        invitation = context.enrolment.invite(
            country,
            _role(role),
            exchange=context.settings.address,
            root_digest=digest(root) if root else None,
            now=context.clock(),
        )
        context.note(EventKind.PARTY_INVITED, subject=f"{country} {role}")
        return invitation.model_dump(mode="json")

    def enrolments(self) -> list[dict[str, str]]:
        """Return every request for admission, and whose certificate two parties hold."""
        disputes = self._context.enrolment.register.disputes()
        disputed = {(one.country, one.role) for one in disputes}
        return [
            {**_shown(one), "disputed": "yes" if (one.country, one.role) in disputed else ""}
            for one in self._context.enrolment.all()
        ]

    def admit(self, fingerprint: str) -> dict[str, str]:
        """Admit the pending request with this fingerprint."""
        context = self._context
        admitted = context.enrolment.admit(fingerprint, context.clock())
        if admitted.role is Role.NODE:
            context.sessions.open_session(admitted.statement)
        context.note(EventKind.PARTY_ADMITTED, subject=_subject(admitted))
        return _shown(admitted)

    def turn_away(self, fingerprint: str) -> None:
        """Refuse the pending request with this fingerprint."""
        self._context.enrolment.refuse(fingerprint)
        self._context.note(EventKind.PARTY_REFUSED, subject=fingerprint, outcome=Outcome.REFUSED)

    def revoke(self, country: str, role: str) -> int:
        """Revoke every certificate of a country's node or officer; returns how many."""
        context = self._context
        serials = context.enrolment.revoke(country, _role(role), context.clock())
        if not serials:
            raise OperationFault(
                f"{country} has no certificate as {role}", fix="see `admit --list`"
            )
        if role == Role.NODE:
            context.sessions.leave(country)
        context.note(EventKind.PARTY_REVOKED, subject=f"{country} {role}")
        return len(serials)


def _role(role: str) -> Role:
    if role not in INVITED:
        raise OperationFault(f"{role!r} is no role", fix="use node or officer")
    return INVITED[role]


def _subject(one: Enrolment) -> str:
    return f"{one.country} {one.role} {one.fingerprint}"


def _shown(one: Enrolment) -> dict[str, str]:
    return {
        "country": one.country,
        "role": one.role.value,
        "fingerprint": one.fingerprint,
        "status": one.status,
    }
