"""The gate in front of every message: what may be answered at all, decided without a record.

In this order: not paused; readable; fresh documents, none older than the coordinator's; a known
study; the coordinator's signature over the context that this node computes itself; and the one
decision of `governance.policy.assessment` (live permit of the own officer, no withdrawal, agreement
in force, policies, installed task, dictionary, budget). Whatever is not a clean yes is a Refusal.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from client.border.admission import Admission, Repetition
from client.border.person_register import node_register, require_node_register
from client.credentials.identity_keys import IdentityKeys
from client.documents.store import DocumentStore, Held
from client.errors import RecordFault
from client.records.store import RecordStore, records_unusable
from client.state.count_id import count_id
from client.state.decision_log import Clock, Subject
from client.state.pause import PauseSwitch
from client.state.reply_journal import CONTRIBUTE, Place, ReplyJournal
from client.state.runs import RunRecord, RunStore
from client.tasks.registry import INSTALLED
from governance.budget.ledger import Ledger, Terms
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import Assessment, assess, ledger_terms
from keys.composite import Identity, PublicIdentity, read_identity
from keys.errors import PratiqueError
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import RoundTerms, RunTerms
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.messages import Request, read_request, require_current
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_BUNDLE,
    PHASE_CONTRIBUTE,
    Phase,
)
from protocols.tasks.schedule import COHORT_FLOOR
from protocols.wire.signed_message import COORDINATOR

USED_PERMIT = "node/permit-used"
SYNC_PAUSE_SECONDS = 5.0
"""Whoever sends a frame can claim newer documents; a claim costs a fetch this rarely."""


@dataclass(frozen=True)
class _Trusted:
    """A request that the coordinator signed for where its run is."""

    run: CountryRun
    record: RunRecord | None
    roster: tuple[str, ...]
    peers: Mapping[str, str]
    round: RoundTerms | None
    context: bytes


class Gate:
    """Decides about each frame. It changes nothing but when it last fetched documents."""

    def __init__(
        self,
        *,
        country: str,
        identities: IdentityKeys,
        person_register: str | None,
        documents: DocumentStore,
        record_store: RecordStore,
        pause: PauseSwitch,
        journal: ReplyJournal,
        runs: RunStore,
        ledger: Ledger,
        sync: Callable[[], None],
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sync` fetches the documents at once; it raises where it cannot. `monotonic`: seconds."""
        self._country, self._identities = country, identities
        self._register = person_register
        self._documents, self._record_store, self._pause = documents, record_store, pause
        self._journal, self._runs, self._ledger = journal, runs, ledger
        self._sync, self._clock = sync, clock
        self._monotonic, self._in_vain = monotonic, -inf

    def admit(self, frame: bytes) -> Admission | Repetition:
        """Return what the frame's answer is made from, or the answer it got. Raises Refusal."""
        self._pause.require_running()
        request = read_request(frame)
        held = self._fresh(request)
        study = _study(request, held)
        place, subject = Place.of(request), Subject.of(frame, request)
        repeated = self._repeated(request, place, held)
        trusted = None if repeated is not None else self._trusted(frame, request, study, held)
        assessment, budget = self._assessed(study, held, place.run)
        if trusted is None:
            return Repetition(repeated or b"", subject)
        return Admission(
            frame=frame,
            request=request,
            subject=subject,
            place=place,
            held=held,
            study=study,
            permit=_permit(held, study),
            assessment=assessment,
            budget=budget,
            roster=trusted.roster,
            peers=trusted.peers,
            run=trusted.run,
            record=trusted.record,
            round=trusted.round,
            context=trusted.context,
        )

    def _repeated(self, request: Request, place: Place, held: Held) -> bytes | None:
        """Return the reply that the same words got; they must be signed, perhaps anew."""
        reply = self._journal.repeated(place, request.digest)
        context = None if reply is None else self._journal.context(place)
        if context is not None:
            request.authenticate(_coordinator(held), phase=request.phase, context=context)
        return reply

    def _fresh(self, request: Request) -> Held:
        held = self._held()
        if held.verified.newer_in(request.versions):
            if self._monotonic() - self._in_vain >= SYNC_PAUSE_SECONDS:
                held = self._caught_up(request)
            require_current(held.verified, request.versions, COORDINATOR)
        return held

    def _caught_up(self, request: Request) -> Held:
        """Fetch at once. A claim that this does not bear out is not followed again for a while."""
        held = None
        try:
            with _refusing(ReasonCode.DOCUMENTS_BEHIND):
                self._sync()
            held = self._held()
        finally:
            if held is None or held.verified.newer_in(request.versions):
                self._in_vain = self._monotonic()
        return held

    def _held(self) -> Held:
        now = self._clock()
        with _refusing(ReasonCode.DOCUMENTS_EXPIRED):
            own, view = self._documents.own(now), self._documents.view(now)
        with _refusing(ReasonCode.DOCUMENTS_BEHIND):
            return Held(view.with_own(own), own)

    def _trusted(self, frame: bytes, request: Request, study: Study, held: Held) -> _Trusted:
        place, phase = Place.of(request), request.phase
        record = self._record(request, place)
        roster = request.roster if record is None else record.roster
        _require_roster(roster, study)
        identity, peers = self._keys(held, roster, record)
        with _refusing(ReasonCode.ROSTER):
            terms = study.run_terms(held.view.agreement, request.body.run_id, roster)
            view = self._own_view(terms, held, identity, peers)
        if record is None:
            run = CountryRun.start(view)
        else:
            run = CountryRun.from_bytes(record.state, view)
        if phase == PHASE_CONTRIBUTE:
            opened = run.admit(frame)
            return _Trusted(run, record, roster, peers, opened, opened.context)
        context = self._context(view, place, phase)
        view.trust(request, phase, context)
        return _Trusted(run, record, roster, peers, None, context)

    def _record(self, request: Request, place: Place) -> RunRecord | None:
        if request.phase == PHASE_BUNDLE:
            self._runs.require_unused(place.run)
            return None
        record = self._runs.live(place.run)
        if record.study != request.body.study:
            raise Refusal(
                ReasonCode.STALE,
                "The request names another study than its run was entered for",
                why="a run serves one study from its first message to its last",
            )
        return record

    def _context(self, view: CountryView, place: Place, phase: Phase) -> bytes:
        if phase not in (PHASE_AGREE, PHASE_ANSWER):
            return view.terms.context
        context = self._journal.context(Place(place.run, place.round, CONTRIBUTE))
        if context is None:
            raise Refusal(
                ReasonCode.STALE,
                "Something is asked of a round that this country did not contribute to",
            )
        return context

    def _own_view(
        self, terms: RunTerms, held: Held, identity: Identity, peers: Mapping[str, str]
    ) -> CountryView:
        suite = held.view.agreement.signatures
        return CountryView(
            country=self._country,
            terms=terms,
            identity=suite.private(identity),
            peers={country: suite.public(read_identity(key)) for country, key in peers.items()},
            coordinator=_coordinator(held),
            versions=held.verified,
        )

    def _keys(
        self, held: Held, roster: tuple[str, ...], record: RunRecord | None
    ) -> tuple[Identity, Mapping[str, str]]:
        """Return the key to sign with and the countries' keys; a run keeps those it began with.

        A run that begins now is signed with the key in use and no other, whatever is published.
        """
        present, peers = self._identities.present, _peers(held, roster)
        if record is not None and record.peers:
            return self._identities.of(record.peers[self._country]) or present, record.peers
        return present, peers

    def _assessed(self, study: Study, held: Held, run: str) -> tuple[Assessment, Terms]:
        own = node_register(self._register, self._ledger, held.view.agreement)
        require_node_register(own, study.population.register_name)
        self._require_fit(study)
        with _refusing(ReasonCode.POLICY):
            register = study.population.register_name
            known = self._documents.periods_known_since(register)
            budget = ledger_terms(held.view.agreement, register, held.view.now, known=known)
        assessment = assess(
            study,
            held.view.agreement,
            country=self._country,
            now=held.view.now,
            permit=held.own.permit(study.digest),
            withdrawal=held.own.withdrawal(study.digest),
            national=held.own.policy,
            installed_tasks=INSTALLED,
            ledger=self._ledger.view(budget),
            reserved_micro=self._reserved(study, held, run),
        )
        assessment.require()
        self._require_unspent(study, held, run)
        return assessment, budget

    def _require_unspent(self, study: Study, held: Held, run: str) -> None:
        """A permit is for the study's ε once: a run launched anew needs a permit given anew."""
        issued = _permit(held, study).issued
        others = {
            entry.run
            for entry in self._ledger.entries(study=study.digest)
            if entry.run != run and entry.phase != COHORT_FLOOR and entry.created >= issued
        }
        if others:
            raise Refusal(
                ReasonCode.NO_PERMIT,
                "The permit for this study has been used",
                why=f"run {min(others)} was charged under it; another one would cost the patients "
                "more than the study promises",
                fix="ask the officer to approve the study again (`approve --reconsider`)",
                clause=USED_PERMIT,
            )

    def _reserved(self, study: Study, held: Held, run: str) -> int:
        """Return what this run, and the count behind its cohort floor, have been charged."""
        permit = held.own.permit(study.digest)
        runs = [run] if permit is None else [run, count_id(permit)]
        return sum(entry.rdp_micro for one in runs for entry in self._ledger.entries(run=one))

    def _require_fit(self, study: Study) -> None:
        if not self._record_store.described:
            raise records_unusable()
        try:
            self._record_store.require_fit(study)
        except RecordFault as fault:
            raise Refusal(
                ReasonCode.POLICY,
                fault.what,
                why=fault.why,
                fix=fault.fix,
                clause="node/dictionary",
            ) from None


@contextmanager
def _refusing(code: ReasonCode) -> Iterator[None]:
    """Turn faults into refusals of this code, with the same sentences."""
    try:
        yield
    except Refusal:
        raise
    except PratiqueError as fault:
        raise Refusal(code, fault.what, why=fault.why, fix=fault.fix) from fault


def _study(request: Request, held: Held) -> Study:
    if request.body.agreement != held.view.agreement.digest:
        raise Refusal(
            ReasonCode.STALE,
            "The request is under another agreement than the one in force here",
            why=f"in force is {held.view.agreement.digest}",
            fix="nothing to do here; the coordinator must begin a new run",
        )
    try:
        study = held.view.study(request.body.study)
    except DocumentFault as fault:
        raise Refusal(ReasonCode.UNKNOWN_STUDY, fault.what, why=fault.why, fix=fault.fix) from None
    if study is None:
        raise Refusal(
            ReasonCode.UNKNOWN_STUDY,
            "The request names a study that is not among the published documents",
            why="a study counts by the digest that the coordinator signed and published",
            fix="ask the coordinator to propose it, and wait for the next document sync",
        )
    return study


def _permit(held: Held, study: Study) -> Permit:
    permit = held.own.permit(study.digest)
    if permit is None:
        raise Refusal(ReasonCode.NO_PERMIT, "There is no permit for this study")
    if permit.issued > held.view.now:
        raise Refusal(
            ReasonCode.NO_PERMIT,
            "The permit for this study is from the future",
            why=f"it was given at {permit.issued:%Y-%m-%d %H:%M:%S} UTC by the officer's clock; a "
            "run charged before that could not be told from one that it does not cover",
            fix="set both clocks right; the permit counts once that time has come here",
            clause="node/permit-from-the-future",
        )
    return permit


def _require_roster(roster: tuple[str, ...], study: Study) -> None:
    strangers = [country for country in roster if country not in study.countries]
    if strangers:
        raise Refusal(
            ReasonCode.ROSTER,
            "The run names countries that the study does not",
            why=f"the study is of {', '.join(study.countries)}",
        )


def _coordinator(held: Held) -> PublicIdentity:
    agreement = held.view.agreement
    return agreement.signatures.public(read_identity(agreement.coordinator.identity_key))


def _peers(held: Held, roster: tuple[str, ...]) -> dict[str, str]:
    keys = {country: held.view.node_keys(country) for country in roster}
    unknown = sorted(country for country, node in keys.items() if node is None)
    if unknown:
        why = "; ".join(held.view.absent.get(country, f"{country} has none") for country in unknown)
        raise Refusal(
            ReasonCode.ROSTER,
            f"The documents hold no node keys of {', '.join(unknown)}",
            why=why,
            fix="ask the officer there to sign the node's keys, or to renew the documents",
        )
    with _refusing(ReasonCode.ROSTER):
        held.view.require_suite(roster)
    return {country: node.identity_key for country, node in keys.items() if node}
