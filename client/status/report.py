"""What `pratique-node status` shows: everything the operator may know, nothing that leaves."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from client.border.person_register import node_register
from client.documents.store import Held
from client.documents.study_status import UNDECIDED, study_status
from client.parts import NodeParts
from client.state.restored import last_restored
from client.state.runs import RunSummary
from client.status.summary import LinkStatus, StatusSummary, ledger_status
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import ledger_terms
from governance.runtime.database import transaction
from governance.trust.view import TrustedView
from keys.identity import VerifyKey

LATELY = timedelta(minutes=10)
"""A run in which this node answered nothing for longer may be over: nobody need tell it."""


class StatusReport:
    """One node's own view of itself. It changes nothing."""

    def __init__(self, parts: NodeParts) -> None:
        self._settings, self._engine = parts.settings, parts.engine
        self._documents, self._record_store = parts.documents, parts.record_store
        self._identities, self._ledger = parts.identities, parts.ledger
        self._runs, self._pause, self._decisions = parts.runs, parts.pause, parts.decisions
        self._journal, self._log, self._clock = parts.journal, parts.log, parts.clock

    def status(self, link: LinkStatus) -> dict[str, Any]:
        """Return the whole picture as JSON values."""
        held, fault = self._held()
        view = held.view if held else self._view()
        live = self._runs.summaries(live=True)
        studies = _studies(view, held, self._settings.country)
        return {
            "country": self._settings.country,
            "federation": self._federation(),
            "waiting_for": self._standing(link, fault, studies, live).sentence(),
            "connected": link.connected,
            "paused": self._pause.state(),
            "documents": self._document_status(view, held, fault),
            "data": self._data_status(),
            "ledger": self._ledger_status(view),
            "studies": list(studies.values()),
            "runs": [_run(run, studies) for run in live],
            "refusals": self._decisions.refusals(),
            "restored": last_restored(self._engine),
            "log": {"origin": self._log.verifier.name, "size": self._log.size()},
        }

    def _federation(self) -> str | None:
        enrolment = self._settings.enrolment
        return enrolment.federation if enrolment else None

    def _held(self) -> tuple[Held | None, str]:
        """Return the documents that a message would be judged by, or why there are none."""
        try:
            held = self._documents.held(self._clock())
        except DocumentFault as fault:
            return None, _sentence(fault)
        return held, self._key_problem(held)

    def _view(self) -> TrustedView | None:
        try:
            return self._documents.view(self._clock())
        except DocumentFault:
            return None

    def _key_problem(self, held: Held) -> str:
        node = held.own.node
        if node is None:
            return "the officer has not signed this node's keys (node-keys.json)"
        held_here = (self._identities.present, self._identities.following)
        if node.identity_key not in {key.public.to_text() for key in held_here if key}:
            return "the officer has signed the keys of another node; sign node-keys.json again"
        return ""

    def _standing(
        self,
        link: LinkStatus,
        documents: str,
        studies: Mapping[str, Mapping[str, Any]],
        live: list[RunSummary],
    ) -> StatusSummary:
        pause, records = self._pause.state(), self._record_store.fault
        lately = self._lately(live)
        return StatusSummary(
            paused=None if pause is None else pause["reason"],
            link=link,
            documents=documents,
            records="" if records is None else records.what,
            running=list(dict.fromkeys(_name(studies, run.study) for run in lately)),
            quiet=len(live) - len(lately),
            undecided=[str(s["id"]) for s in studies.values() if s["standing"] == UNDECIDED],
        )

    def _lately(self, live: list[RunSummary]) -> list[RunSummary]:
        """Return the runs that were entered, or answered in, within the last minutes."""
        since = self._clock() - LATELY
        with transaction(self._engine) as opened:
            last = {run.run: self._journal.latest(run.run, opened) or run.created for run in live}
        return [run for run in live if last[run.run] >= since]

    def _document_status(
        self, view: TrustedView | None, held: Held | None, fault: str
    ) -> dict[str, Any]:
        return {
            "agreement": view.agreement.title if view else None,
            "expires": view.expires.isoformat() if view else None,
            "ends": view.agreement.sunset.isoformat() if view else None,
            "signatures": view.agreement.signatures.in_words if view else None,
            "countries": _expiries(view) if view else {},
            "versions": (held.view if held else view).versions.by_name() if view else {},
            "own": _own(held),
            "absent": dict(view.absent) if view else {},
            "ignored": list(view.ignored) if view else [],
            "fault": fault or None,
            "officer": self._officer_keys(),
        }

    def _officer_keys(self) -> dict[str, str | None]:
        """Return the fingerprints of the officer's key, and of the one that is to follow."""
        officer = self._documents.officer
        later = VerifyKey.from_text(officer.announced).fingerprint if officer.announced else None
        return {"key": officer.present.fingerprint, "announced": later}

    def _data_status(self) -> dict[str, Any]:
        fault, version = self._record_store.fault, self._record_store.version
        patients = self._record_store.records().patients if version else None
        return {
            "file": str(self._settings.data),
            "version": version,
            "patients": patients,
            "fault": str(fault) if fault else None,
        }

    def _ledger_status(self, view: TrustedView | None) -> dict[str, Any] | None:
        if view is None:
            return None
        own = node_register(self._settings.person_register, self._ledger, view.agreement)
        budget = view.agreement.register_budget(own) if own else None
        if budget is None or view.now < view.agreement.effective:
            return None
        known = self._documents.periods_known_since(budget.register_name)
        terms = ledger_terms(view.agreement, budget.register_name, view.now, known=known)
        return ledger_status(self._ledger.view(terms), budget)


def _studies(
    view: TrustedView | None, held: Held | None, country: str
) -> dict[str, dict[str, Any]]:
    """Return the studies that ask this country, by digest."""
    if view is None:
        return {}
    asked = [study for study in view.studies.values() if country in study.countries]
    return {study.digest: _study(study, view, held) for study in asked}


def _study(study: Study, view: TrustedView, held: Held | None) -> dict[str, Any]:
    permit = held.own.permit(study.digest) if held else None
    withdrawal = held.own.withdrawal(study.digest) if held else None
    return {
        "id": study.id,
        "title": study.title,
        "digest": study.digest,
        "standing": study_status(study, permit, withdrawal, view.now),
    }


def _expiries(view: TrustedView) -> dict[str, str]:
    """Return until when each country's documents hold."""
    return {country: held.expires.isoformat() for country, held in view.countries.items()}


def _own(held: Held | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {"version": held.own.version, "expires": held.own.expires.isoformat()}


def _run(run: RunSummary, studies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    name = _name(studies, run.study)
    return {"run": run.run, "study": name, "entered": run.created.isoformat()}


def _name(studies: Mapping[str, Mapping[str, Any]], study: str) -> str:
    return str(studies[study]["id"]) if study in studies else study


def _sentence(fault: DocumentFault) -> str:
    return f"{fault.what}; {fault.why}" if fault.why else fault.what
