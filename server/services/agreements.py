"""Agreements: prepare one for signature, and show who has signed it."""

from collections.abc import Mapping
from typing import Any

from governance.documents.agreement import DEFAULT_COHORT_COUNT, Agreement
from governance.documents.reading import read_document
from governance.trust.ceremony import DraftStatus
from keys.certificates import Role
from server.answers import AgreementDraft, AgreementInForce
from server.errors import CoordinatorFault
from server.key_rotation import key_fields
from server.services.context import CoordinatorContext
from server.services.study_checks import fill_in_keys, signatures_in_words


class Agreements:
    """Proposes an agreement to the officers."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context

    def propose(self, text: str, source: str) -> AgreementDraft | AgreementInForce:
        """Prepare an agreement for signature, with the keys of the admitted parties filled in."""
        context = self._context
        agreement = read_document(Agreement, text.encode(), source, complete=self._complete)
        if agreement.federation != context.settings.federation:
            raise CoordinatorFault(
                f"The agreement is for the federation {agreement.federation!r}",
                why=f"this coordinator serves {context.settings.federation!r}",
                fix="correct `federation` in the file",
            )
        context.repository.draft(agreement, context.clock())
        return self.status()

    def renew(self) -> AgreementDraft | AgreementInForce:
        """Prepare the agreement in force for new signatures, with every newly announced key.

        It replaces an unfinished draft and the signatures on that draft.
        """
        context = self._context
        context.repository.draft_renewal(context.clock(), key_fields(context.keys))
        return self.status()

    def publish(self) -> AgreementDraft | AgreementInForce:
        """Publish the draft now, even if not every country has signed it."""
        self._context.documents.publish()
        return self.status()

    def status(self) -> AgreementDraft | AgreementInForce:
        """Return who has signed the draft, or which agreement is in force."""
        draft = self._context.repository.draft_status()
        return self._in_force() if draft is None else self._draft(draft)

    def _draft(self, draft: DraftStatus) -> AgreementDraft:
        return AgreementDraft(
            digest=draft.digest,
            signed=draft.signed,
            unsigned=draft.unsigned,
            needed=draft.needed,
            announced=self._context.repository.announced_keys(),
        )

    def _in_force(self) -> AgreementInForce:
        view = self._context.view()
        return AgreementInForce(
            digest=view.agreement.digest,
            title=view.agreement.title,
            countries=tuple(view.agreement.countries),
            root=view.versions.root,
            sunset=view.agreement.sunset.isoformat(),
            signatures=signatures_in_words(view, view.agreement.countries),
            signed_until=view.signed_until.isoformat(),
            announced=self._context.repository.announced_keys(),
        )

    def _complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in the keys, and the cost of a cohort's count if the file does not state it."""
        stated = {"cohort_count": DEFAULT_COHORT_COUNT, **values}
        return fill_in_keys(stated, self._officer_keys(), key_fields(self._context.keys))

    def _officer_keys(self) -> dict[str, str]:
        """Return each country's newest document key.

        This is the announced key; without one, the key in force; without that, the key from
        enrolment.
        """
        context = self._context
        officers = context.enrolment.admitted(Role.OFFICER)
        keys = {officer.country: officer.document_key or "" for officer in officers}
        return keys | context.repository.officer_keys() | context.repository.announced_keys()
