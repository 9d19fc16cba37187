"""Gets new documents, from the exchange or from the officer, and logs them."""

import logging
from collections.abc import Mapping
from pathlib import Path

from client.documents.key_changes import KeyChanges
from client.documents.store import DocumentStore, Fetch
from client.errors import NodeFault
from client.state.decision_log import Clock, DecisionLog, Subject
from governance.audit.events import EventKind, Outcome
from governance.documents.permit import Permit, Withdrawal
from governance.errors import DocumentFault
from governance.runtime.text_files import read_bounded
from governance.trust.bundle import CountryBundle, CountryDocuments
from keys.errors import PratiqueError
from protocols.wire.encoding import digest

OFFICER_FILES = "*.json"

_log = logging.getLogger("pratique.node")


class DocumentUpdates:
    """Brings new documents into the document store of one node."""

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
        self._use_next_key()

    def deliver(self, bundle: bytes) -> CountryDocuments:
        """Store the country's documents from its officer. Raises DocumentFault."""
        own = self._store(bundle)
        self._use_next_key()
        return own

    def collect(self) -> None:
        """Store the files that the officer left in the node's folder while no daemon ran."""
        for file in sorted(self._folder.glob(OFFICER_FILES)):
            try:
                self._store(read_bounded(file, CountryBundle.most_bytes))
                file.unlink()
            except (PratiqueError, OSError, ValueError) as fault:
                _log.error("officer's file refused", extra={"path": file.name, "why": str(fault)})
                file.replace(file.with_suffix(".refused"))

    def require_none_waiting(self) -> None:
        """Raise NodeFault if the officer left files that the daemon has not stored yet."""
        if any(self._folder.glob(OFFICER_FILES)):
            raise NodeFault(
                "Documents of your officer wait in the node's folder",
                why="the daemon, or the command that runs now, has not stored them yet, and they "
                "may forbid this",
                fix="try again in a minute; if they still wait, see `pratique-node status`",
            )

    def own(self) -> CountryDocuments | None:
        """Return the documents of the node's country; None if none are valid."""
        try:
            return self._documents.own(self._clock())
        except DocumentFault:
            return None

    def _store(self, bundle: bytes) -> CountryDocuments:
        former = self.own()
        try:
            own = self._documents.deliver(bundle, self._clock())
        except DocumentFault:
            self._log_bundle(EventKind.DOCUMENTS_REFUSED, bundle, Outcome.REFUSED)
            raise
        self._log_bundle(EventKind.DOCUMENTS_ACCEPTED, bundle, Outcome.DONE)
        self._log_decisions(former, own)
        return own

    def _use_next_key(self) -> None:
        """Sign with the node's next key from now on, if all documents that count name it."""
        own = self.own() if self._keys.pending else None
        if own is None:
            return
        try:
            self._keys.use_successor_if_published(own, self._documents.view(self._clock()))
        except DocumentFault:
            return

    def _log_bundle(self, kind: EventKind, bundle: bytes, outcome: Outcome) -> None:
        subject = Subject(body=digest(bundle))
        self._decisions.event(kind, subject, actor=self._officer, outcome=outcome)

    @property
    def _officer(self) -> str:
        return self._documents.officer.current.fingerprint

    def _log_decisions(self, former: CountryDocuments | None, own: CountryDocuments) -> None:
        self._log_new(EventKind.PERMIT_ACCEPTED, own.permits, former.permits if former else {})
        self._log_new(
            EventKind.WITHDRAWAL_ACCEPTED, own.withdrawals, former.withdrawals if former else {}
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
