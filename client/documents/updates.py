"""New documents: fetched from the exchange, or handed over by the officer, and logged."""

import logging
from collections.abc import Mapping
from pathlib import Path

from client.documents.key_changes import KeyChanges
from client.documents.store import DocumentStore, Fetch
from client.state.decision_log import Clock, DecisionLog, Subject
from governance.audit.events import EventKind, Outcome
from governance.documents.permit import Permit, Withdrawal
from governance.errors import DocumentFault
from governance.trust.bundle import CountryDocuments
from keys.errors import PratiqueError
from protocols.wire.encoding import digest

OFFICER_FILES = "*.json"

_log = logging.getLogger("pratique.node")


class DocumentUpdates:
    """Brings new documents into one node's document store."""

    def __init__(
        self,
        documents: DocumentStore,
        keys: KeyChanges,
        decisions: DecisionLog,
        *,
        officer_folder: Path,
        fetch: Fetch,
        clock: Clock,
    ) -> None:
        """`fetch` reads one published file through the exchange, or raises LinkFault."""
        self._documents, self._keys, self._decisions = documents, keys, decisions
        self._folder, self._fetch, self._clock = officer_folder, fetch, clock

    def sync(self) -> None:
        """Fetch the published documents. Raises DocumentFault, LinkFault."""
        self._documents.sync(self._fetch, self._clock())
        self._take_up_key()

    def deliver(self, bundle: bytes) -> CountryDocuments:
        """Take the country's documents from its officer. Raises DocumentFault."""
        own = self._take(bundle)
        self._take_up_key()
        return own

    def collect(self) -> None:
        """Take the files that the officer left while no daemon was there to receive them."""
        for file in sorted(self._folder.glob(OFFICER_FILES)):
            try:
                self._take(file.read_bytes())
                file.unlink()
            except (PratiqueError, OSError) as fault:
                _log.error("officer's file refused", extra={"path": file.name, "why": str(fault)})
                file.replace(file.with_suffix(".refused"))

    def own(self) -> CountryDocuments | None:
        """Return the country's documents; None where none are valid."""
        try:
            return self._documents.own(self._clock())
        except DocumentFault:
            return None

    def _take(self, bundle: bytes) -> CountryDocuments:
        before = self.own()
        try:
            own = self._documents.deliver(bundle, self._clock())
        except DocumentFault:
            self._log(EventKind.DOCUMENTS_REFUSED, bundle, Outcome.REFUSED)
            raise
        self._log(EventKind.DOCUMENTS_ACCEPTED, bundle, Outcome.DONE)
        self._log_decisions(before, own)
        return own

    def _take_up_key(self) -> None:
        """Sign with the node's next key if every document that counts names it."""
        own = self.own() if self._keys.pending else None
        if own is None:
            return
        try:
            self._keys.take_up(own, self._documents.view(self._clock()))
        except DocumentFault:
            return

    def _log(self, kind: EventKind, bundle: bytes, outcome: Outcome) -> None:
        subject = Subject(body=digest(bundle))
        self._decisions.event(kind, subject, actor=self._officer, outcome=outcome)

    @property
    def _officer(self) -> str:
        return self._documents.officer.present.fingerprint

    def _log_decisions(self, before: CountryDocuments | None, own: CountryDocuments) -> None:
        self._log_new(EventKind.PERMIT_ACCEPTED, own.permits, before.permits if before else {})
        self._log_new(
            EventKind.WITHDRAWAL_ACCEPTED, own.withdrawals, before.withdrawals if before else {}
        )

    def _log_new(
        self,
        kind: EventKind,
        new: Mapping[str, Permit] | Mapping[str, Withdrawal],
        known: Mapping[str, Permit] | Mapping[str, Withdrawal],
    ) -> None:
        for study, document in new.items():
            if known.get(study) != document:
                subject = Subject(study=study, body=document.digest)
                self._decisions.event(kind, subject, actor=self._officer, outcome=Outcome.DONE)
