"""The agreement: laid out for signature, and how far the signing is."""

from collections.abc import Mapping
from typing import Any

from governance.documents.agreement import Agreement
from governance.documents.reading import read_document
from keys.certificates import Role
from server.errors import OperationFault
from server.key_rotation import fields
from server.services.context import CoordinatorContext
from server.services.study_checks import fill_agreement, signatures_in_words


class Agreements:
    """Proposes an agreement to the officers."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context

    def propose(self, text: str, source: str) -> dict[str, Any]:
        """Lay out an agreement for signature, the parties' admitted keys filled in."""
        context = self._context
        agreement = read_document(Agreement, text.encode(), source, complete=self._fill)
        if agreement.federation != context.settings.federation:
            raise OperationFault(
                f"The agreement is of the federation {agreement.federation!r}",
                why=f"this coordinator serves {context.settings.federation!r}",
                fix="correct `federation` in the file",
            )
        context.repository.draft(agreement, context.clock())
        return self.status()

    def renew(self) -> dict[str, Any]:
        """Lay the agreement in force out again, with every key that was announced since.

        It replaces a draft under way, and the signatures over that.
        """
        context = self._context
        context.repository.renewal(context.clock(), fields(context.keys))
        return self.status()

    def publish(self) -> dict[str, Any]:
        """Publish the draft now, although not every country has signed it."""
        self._context.documents.publish()
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return who has signed the draft, or which agreement is in force."""
        draft = self._context.repository.draft_status()
        if draft is not None:
            return {
                "state": "waiting for signatures",
                "digest": draft.digest,
                "signed": list(draft.signed),
                "unsigned": list(draft.unsigned),
                "needed": draft.needed,
                "announced": self._context.repository.announced(),
            }
        view = self._context.view()
        return {
            "state": "in force",
            "digest": view.agreement.digest,
            "title": view.agreement.title,
            "countries": list(view.agreement.countries),
            "root": view.versions.root,
            "sunset": view.agreement.sunset.isoformat(),
            "signatures": signatures_in_words(view, view.agreement.countries),
            "signed_until": view.signed_until.isoformat(),
            "announced": self._context.repository.announced(),
        }

    def _fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return fill_agreement(values, self._officer_keys(), fields(self._context.keys))

    def _officer_keys(self) -> dict[str, str]:
        """Return each country's key: as it was admitted, as it is in force, as it is announced."""
        context = self._context
        officers = context.enrolment.admitted(Role.OFFICER)
        keys = {officer.country: officer.document_key or "" for officer in officers}
        return keys | context.repository.officer_keys() | context.repository.announced()
