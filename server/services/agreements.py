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

    def __init__(self, office: CoordinatorContext) -> None:
        self._office = office

    def propose(self, text: str, source: str) -> dict[str, Any]:
        """Lay out an agreement for signature, the parties' admitted keys filled in."""
        office = self._office
        agreement = read_document(Agreement, text.encode(), source, complete=self._fill)
        if agreement.federation != office.settings.federation:
            raise OperationFault(
                f"The agreement is of the federation {agreement.federation!r}",
                why=f"this coordinator serves {office.settings.federation!r}",
                fix="correct `federation` in the file",
            )
        office.repository.draft(agreement, office.clock())
        return self.status()

    def renew(self) -> dict[str, Any]:
        """Lay the agreement in force out again, with every key that was announced since.

        It replaces a draft under way, and the signatures over that.
        """
        office = self._office
        office.repository.renewal(office.clock(), fields(office.keys))
        return self.status()

    def publish(self) -> dict[str, Any]:
        """Publish the draft now, although not every country has signed it."""
        self._office.documents.publish()
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return who has signed the draft, or which agreement is in force."""
        draft = self._office.repository.draft_status()
        if draft is not None:
            return {
                "state": "waiting for signatures",
                "digest": draft.digest,
                "signed": list(draft.signed),
                "unsigned": list(draft.unsigned),
                "needed": draft.needed,
                "announced": self._office.repository.announced(),
            }
        view = self._office.view()
        return {
            "state": "in force",
            "digest": view.agreement.digest,
            "title": view.agreement.title,
            "countries": list(view.agreement.countries),
            "root": view.versions.root,
            "sunset": view.agreement.sunset.isoformat(),
            "signatures": signatures_in_words(view, view.agreement.countries),
            "signed_until": view.signed_until.isoformat(),
            "announced": self._office.repository.announced(),
        }

    def _fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return fill_agreement(values, self._officer_keys(), fields(self._office.keys))

    def _officer_keys(self) -> dict[str, str]:
        """Return each country's key: as it was admitted, as it is in force, as it is announced."""
        office = self._office
        officers = office.enrolment.admitted(Role.OFFICER)
        keys = {officer.country: officer.document_key or "" for officer in officers}
        return keys | office.repository.officer_keys() | office.repository.announced()
