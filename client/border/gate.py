"""The gate in front of every message: decides, without a record, whether it may be answered.

It checks in this order:

1. the node is not paused, and the frame is readable;
2. the documents are fresh, and none is older than the coordinator's;
3. the study is known;
4. the coordinator has signed the context that this node computes itself;
5. `governance.policy.assessment` allows it: a valid permit of the country's officer, no withdrawal,
   an agreement in force, the policies, an installed task, the dictionary, the budget.

Everything that is not clearly allowed is a Refusal.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from client.border.admission import Admission, Repetition
from client.border.cited_documents import (
    cited_permit,
    cited_study,
    coordinator_keys,
    peer_keys,
    refusing,
    require_every_permit,
    require_roster,
)
from client.border.person_register import node_register, require_node_register
from client.border.run_limit import RunLimit
from client.credentials.identity_keys import IdentityKeys
from client.documents.store import CurrentDocuments, DocumentStore
from client.errors import RecordFault
from client.records.store import RecordStore, records_unusable
from client.state.count_id import CountId
from client.state.decision_log import Clock, Subject
from client.state.pause import PauseSwitch
from client.state.reply_journal import CONTRIBUTE, Place, ReplyJournal
from client.state.runs import RunRecord, RunStore
from client.tasks.registry import INSTALLED
from governance.budget.ledger import Ledger, Terms, total_micro
from governance.documents.study import Study
from governance.policy.assessment import Assessment, assess, ledger_terms
from keys.composite import Identity, read_identity
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
"""Any sender can claim newer documents; after a wrong claim, fetches stop for this long."""


@dataclass(frozen=True)
class _AuthenticRequest:
    """A request that the coordinator signed for the current state of its run."""

    run: CountryRun
    record: RunRecord | None
    roster: tuple[str, ...]
    peers: Mapping[str, str]
    round: RoundTerms | None
    context: bytes


class Gate:
    """Decides about each frame. It changes nothing except the time of the last failed fetch."""

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
        limit: RunLimit,
        sync: Callable[[], None],
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sync` fetches the documents now, or raises. `monotonic` is in seconds."""
        self._country, self._identities = country, identities
        self._register = person_register
        self._documents, self._record_store, self._pause = documents, record_store, pause
        self._journal, self._runs, self._ledger = journal, runs, ledger
        self._limit = limit
        self._sync, self._clock = sync, clock
        self._monotonic, self._last_wrong_claim = monotonic, -inf

    def admit(self, frame: bytes) -> Admission | Repetition:
        """Return the admitted request, or the reply that it got before. Raises Refusal."""
        self._pause.require_running()
        request = read_request(frame)
        documents = self._fresh_documents(request)
        study = cited_study(request, documents)
        place, subject = Place.of(request), Subject.of(frame, request)
        reply = self._earlier_reply(request, place, documents)
        authentic = None if reply is not None else self._authentic(frame, request, study, documents)
        assessment, budget = self._assessed(study, documents, place.run)
        if authentic is None:
            return Repetition(reply or b"", subject)
        permit = cited_permit(documents, study)
        if authentic.record is None:
            self._limit.require_room(permit, documents.view.now)
        return Admission(
            frame=frame,
            request=request,
            subject=subject,
            place=place,
            documents=documents,
            study=study,
            permit=permit,
            assessment=assessment,
            budget=budget,
            roster=authentic.roster,
            peers=authentic.peers,
            run=authentic.run,
            record=authentic.record,
            round=authentic.round,
            context=authentic.context,
        )

    def _earlier_reply(
        self, request: Request, place: Place, documents: CurrentDocuments
    ) -> bytes | None:
        """Return the reply that the same request got; its signature may be by a newer key."""
        reply = self._journal.repeated(place, request.digest)
        context = None if reply is None else self._journal.context(place)
        if context is not None:
            request.authenticate(coordinator_keys(documents), phase=request.phase, context=context)
        return reply

    def _fresh_documents(self, request: Request) -> CurrentDocuments:
        documents = self._current_documents()
        if documents.verified.newer_in(request.versions):
            if self._monotonic() - self._last_wrong_claim >= SYNC_PAUSE_SECONDS:
                documents = self._fetched_documents(request)
            require_current(documents.verified, request.versions, COORDINATOR)
        return documents

    def _fetched_documents(self, request: Request) -> CurrentDocuments:
        """Fetch now; after a claim that the fetch does not confirm, ignore claims for a while."""
        documents = None
        try:
            with refusing(ReasonCode.DOCUMENTS_BEHIND):
                self._sync()
            documents = self._current_documents()
        finally:
            if documents is None or documents.verified.newer_in(request.versions):
                self._last_wrong_claim = self._monotonic()
        return documents

    def _current_documents(self) -> CurrentDocuments:
        now = self._clock()
        with refusing(ReasonCode.DOCUMENTS_EXPIRED):
            own, view = self._documents.own(now), self._documents.view(now)
        with refusing(ReasonCode.DOCUMENTS_BEHIND):
            return CurrentDocuments(view.with_own(own), own)

    def _authentic(
        self, frame: bytes, request: Request, study: Study, documents: CurrentDocuments
    ) -> _AuthenticRequest:
        place, phase = Place.of(request), request.phase
        record = self._record(request, place)
        roster = request.roster if record is None else record.roster
        require_roster(roster, study)
        require_every_permit(documents, study, roster)
        identity, peers = self._keys(documents, roster, record)
        with refusing(ReasonCode.ROSTER):
            least = documents.own.permitted_minimum(study.digest)
            agreement, run_id = documents.view.agreement, request.body.run_id
            terms = study.run_terms(agreement, run_id, roster, permitted_minimum=least)
            view = self._country_view(terms, documents, identity, peers)
        if record is None:
            run = CountryRun.start(view)
        else:
            run = CountryRun.from_bytes(record.state, view)
        if phase == PHASE_CONTRIBUTE:
            terms_of_round = run.admit(frame)
            return _AuthenticRequest(
                run, record, roster, peers, terms_of_round, terms_of_round.context
            )
        context = self._context(view, place, phase)
        view.trust(request, phase, context)
        return _AuthenticRequest(run, record, roster, peers, None, context)

    def _record(self, request: Request, place: Place) -> RunRecord | None:
        if request.phase == PHASE_BUNDLE:
            self._runs.require_unused(place.run)
            return None
        record = self._runs.live(place.run)
        if record.study != request.body.study:
            raise Refusal(
                ReasonCode.STALE,
                "The request names another study than the one that its run was entered for",
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
                "The request is about a round that this country did not contribute to",
            )
        return context

    def _country_view(
        self,
        terms: RunTerms,
        documents: CurrentDocuments,
        identity: Identity,
        peers: Mapping[str, str],
    ) -> CountryView:
        suite = documents.view.agreement.signatures
        return CountryView(
            country=self._country,
            terms=terms,
            identity=suite.private(identity),
            peers={country: suite.public(read_identity(key)) for country, key in peers.items()},
            coordinator=coordinator_keys(documents),
            versions=documents.verified,
        )

    def _keys(
        self, documents: CurrentDocuments, roster: tuple[str, ...], record: RunRecord | None
    ) -> tuple[Identity, Mapping[str, str]]:
        """Return the key to sign with and the countries' keys; a run keeps those it began with.

        A run that begins now is signed with the key in use, and with no other that is published.
        """
        current, peers = self._identities.current, peer_keys(documents, roster)
        if record is not None and record.peers:
            return self._identities.find(record.peers[self._country]) or current, record.peers
        return current, peers

    def _assessed(
        self, study: Study, documents: CurrentDocuments, run: str
    ) -> tuple[Assessment, Terms]:
        agreement, now = documents.view.agreement, documents.view.now
        node_register_name = node_register(self._register, self._ledger, agreement)
        require_node_register(node_register_name, study.population.register_name)
        self._require_fit(study)
        with refusing(ReasonCode.POLICY):
            register = study.population.register_name
            known = self._documents.periods_known_since(register)
            terms = ledger_terms(agreement, register, now, known=known)
            budget = self._runs.with_carried(terms)
        assessment = assess(
            study,
            agreement,
            country=self._country,
            now=now,
            permit=documents.own.permit(study.digest),
            withdrawal=documents.own.withdrawal(study.digest),
            national=documents.own.policy,
            installed_tasks=INSTALLED,
            ledger=self._ledger.view(budget),
            reserved_micro=self._charged_micro(study, documents, run),
        )
        assessment.require()
        self._require_unused_permit(study, documents, run)
        return assessment, budget

    def _require_unused_permit(self, study: Study, documents: CurrentDocuments, run: str) -> None:
        """Raise Refusal NO_PERMIT if another run was charged under the permit.

        A permit pays for the ε of the study once. A new run needs a new permit.
        """
        issued = cited_permit(documents, study).issued
        others = {
            entry.run
            for entry in self._ledger.entries(study=study.digest)
            if entry.run != run and entry.phase != COHORT_FLOOR and entry.created >= issued
        }
        if others:
            raise Refusal(
                ReasonCode.NO_PERMIT,
                "The permit for this study has been used",
                why=f"run {min(others)} was charged under it; another run would cost the patients "
                "more privacy than the study states",
                fix="ask the officer to approve the study again (`approve --reconsider`)",
                clause=USED_PERMIT,
            )

    def _charged_micro(self, study: Study, documents: CurrentDocuments, run: str) -> int:
        """Return the charges for this run and its cohort count, in micro-units of RDP.

        A count of the cohort in any version of the records counts: the records do not decide this.
        """
        permit = documents.own.permit(study.digest)
        entries = self._ledger.entries(run=run)
        if permit is not None:
            count = CountId.of(study, documents.view.agreement, permit)
            entries += self._ledger.entries(run_prefix=count.prefix)[-1:]
        return total_micro(entries)

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
