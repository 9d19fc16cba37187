"""Collects the status of a node: everything its operator may know, and nothing that leaves."""

from collections.abc import Mapping
from datetime import timedelta

from client.border.person_register import node_register
from client.documents.store import CurrentDocuments
from client.documents.study_status import UNDECIDED, study_status
from client.parts import NodeParts
from client.state.pause import Pause
from client.state.restored import last_restored
from client.state.runs import RunSummary
from client.status.model import (
    DataStatus,
    DocumentStatus,
    LedgerStatus,
    LogStatus,
    NodeStatus,
    OfficerKeys,
    OwnDocuments,
    RunStatus,
    StudyStatus,
)
from client.status.summary import LinkStatus, StatusSummary, ledger_status
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import ledger_terms
from governance.runtime.database import transaction
from governance.trust.view import TrustedView
from keys.identity import VerifyKey

LATELY = timedelta(minutes=10)
"""A run in which this node answered nothing for longer may be over: its end is not announced."""


class StatusReport:
    """Reads the status of one node from its parts. It changes nothing."""

    def __init__(self, parts: NodeParts) -> None:
        self._settings, self._engine = parts.settings, parts.engine
        self._documents, self._record_store = parts.documents, parts.record_store
        self._identities, self._ledger = parts.identities, parts.ledger
        self._runs, self._pause, self._decisions = parts.runs, parts.pause, parts.decisions
        self._journal, self._log, self._clock = parts.journal, parts.log, parts.clock
        self._opt_outs = parts.opt_outs

    def status(self, link: LinkStatus) -> NodeStatus:
        """Return the whole status of the node."""
        current, fault = self._current_documents()
        view = current.view if current else self._published_view()
        live, pause = self._runs.summaries(live=True), self._pause.state()
        studies = _studies(view, current, self._settings.country)
        return NodeStatus(
            country=self._settings.country,
            federation=self._federation(),
            waiting_for=self._summary(link, pause, fault, studies, live).sentence(),
            connected=link.connected,
            disputed=link.disputed,
            paused=pause,
            documents=self._document_status(view, current, fault),
            data=self._data_status(),
            ledger=self._ledger_status(view),
            studies=tuple(studies.values()),
            runs=tuple(_run_status(run, studies) for run in live),
            refusals=self._decisions.refusals(),
            restored=last_restored(self._engine),
            log=LogStatus(origin=self._log.verifier.name, size=self._log.size()),
            clock=link.clock or None,
        )

    def _federation(self) -> str | None:
        enrolment = self._settings.enrolment
        return enrolment.federation if enrolment else None

    def _current_documents(self) -> tuple[CurrentDocuments | None, str]:
        """Return the documents that a message would be judged by, and a sentence on any fault."""
        try:
            current = self._documents.current(self._clock())
        except DocumentFault as fault:
            return None, fault.sentence
        return current, self._key_problem(current)

    def _published_view(self) -> TrustedView | None:
        try:
            return self._documents.view(self._clock())
        except DocumentFault:
            return None

    def _key_problem(self, current: CurrentDocuments) -> str:
        node = current.own.node
        if node is None:
            return "the officer has not signed this node's keys (node-keys.json)"
        identities = (self._identities.current, self._identities.successor)
        if node.identity_key not in {key.public.to_text() for key in identities if key}:
            return "the officer has signed the keys of another node; sign node-keys.json again"
        return ""

    def _summary(
        self,
        link: LinkStatus,
        pause: Pause | None,
        document_fault: str,
        studies: Mapping[str, StudyStatus],
        live: list[RunSummary],
    ) -> StatusSummary:
        record_fault, recent = self._record_store.fault, self._recent(live)
        return StatusSummary(
            paused=None if pause is None else pause.reason,
            link=link,
            documents=document_fault,
            records=record_fault.what if record_fault and not self._record_store.version else "",
            running=list(dict.fromkeys(_study_name(studies, run.study) for run in recent)),
            quiet=len(live) - len(recent),
            undecided=[study.id for study in studies.values() if study.standing == UNDECIDED],
        )

    def _recent(self, live: list[RunSummary]) -> list[RunSummary]:
        """Return the runs that were entered, or answered in, within the last minutes."""
        since = self._clock() - LATELY
        with transaction(self._engine) as opened:
            last = {run.run: self._journal.latest(run.run, opened) or run.created for run in live}
        return [run for run in live if last[run.run] >= since]

    def _document_status(
        self, view: TrustedView | None, current: CurrentDocuments | None, fault: str
    ) -> DocumentStatus:
        versions = (current.view if current else view).versions.by_name() if view else {}
        return DocumentStatus(
            agreement=view.agreement.title if view else None,
            expires=view.expires.isoformat() if view else None,
            ends=view.agreement.sunset.isoformat() if view else None,
            signatures=view.agreement.signatures.in_words if view else None,
            countries=_expiries(view) if view else {},
            versions=versions,
            own=_own_documents(current),
            absent=dict(view.absent) if view else {},
            ignored=tuple(view.ignored) if view else (),
            fault=fault or None,
            officer=self._officer_keys(),
        )

    def _officer_keys(self) -> OfficerKeys:
        officer = self._documents.officer
        later = VerifyKey.from_text(officer.announced).fingerprint if officer.announced else None
        return OfficerKeys(key=officer.current.fingerprint, announced=later)

    def _data_status(self) -> DataStatus:
        fault, records = self._record_store.fault, self._record_store.latest
        open_entries = self._opt_outs.unconfirmed(self._settings, records.report) if records else ()
        return DataStatus(
            file=str(self._settings.data),
            version=records.version if records else None,
            patients=records.patients if records else None,
            fault=str(fault) if fault else None,
            unmatched_opt_outs=len(open_entries),
        )

    def _ledger_status(self, view: TrustedView | None) -> LedgerStatus | None:
        if view is None:
            return None
        register = node_register(self._settings.person_register, self._ledger, view.agreement)
        budget = view.agreement.register_budget(register) if register else None
        if budget is None or view.now < view.agreement.effective:
            return None
        known = self._documents.periods_known_since(budget.register_name)
        terms = ledger_terms(view.agreement, budget.register_name, view.now, known=known)
        return ledger_status(self._ledger.view(self._runs.with_carried(terms)), budget)


def _studies(
    view: TrustedView | None, current: CurrentDocuments | None, country: str
) -> dict[str, StudyStatus]:
    """Return the studies that name this country, by digest."""
    if view is None:
        return {}
    studies = [study for study in view.studies.values() if country in study.countries]
    return {study.digest: _study_status(study, view, current) for study in studies}


def _study_status(study: Study, view: TrustedView, current: CurrentDocuments | None) -> StudyStatus:
    permit = current.own.permit(study.digest) if current else None
    withdrawal = current.own.withdrawal(study.digest) if current else None
    return StudyStatus(
        id=study.id,
        title=study.title,
        digest=study.digest,
        standing=study_status(study, permit, withdrawal, view.now),
    )


def _expiries(view: TrustedView) -> dict[str, str]:
    """Return when the documents of each country expire."""
    return {country: signed.expires.isoformat() for country, signed in view.countries.items()}


def _own_documents(current: CurrentDocuments | None) -> OwnDocuments | None:
    if current is None:
        return None
    return OwnDocuments(version=current.own.version, expires=current.own.expires.isoformat())


def _run_status(run: RunSummary, studies: Mapping[str, StudyStatus]) -> RunStatus:
    name = _study_name(studies, run.study)
    return RunStatus(run=run.run, study=name, entered=run.created.isoformat())


def _study_name(studies: Mapping[str, StudyStatus], digest: str) -> str:
    return studies[digest].id if digest in studies else digest
