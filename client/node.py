"""One node, wired: what it does with frames, documents and its operator's wishes.

No thread, socket or signal is in here: the daemon brings them, and tests do without.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from client.border.cohort_floor import CohortFloor
from client.border.door import Door
from client.border.failpoints import FailpointHook, no_failpoint
from client.border.gate import Gate
from client.border.outbox import Outbox
from client.border.recheck import PermissionRecheck
from client.border.request_handler import ReplySlots, RequestHandler
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.documents.store import DocumentStore, Fetch
from client.errors import RecordFault
from client.home import NodeHome
from client.records.store import RecordStore
from client.restore import Restoration, Restored
from client.settings import NodeSettings
from client.state.decision_log import Clock, DecisionLog, Subject
from client.state.log_head import LogHeadGuard
from client.state.pause import PauseSwitch
from client.state.reply_journal import ReplyJournal
from client.state.run_expiry import RunExpiry
from client.state.runs import RunStore
from client.status.report import StatusReport
from client.status.summary import PERMITTED, LinkStatus, study_status
from governance.audit.events import EventKind, Outcome
from governance.audit.exported import exported
from governance.audit.log import AuditLog
from governance.budget.accounting import epsilon
from governance.budget.ledger import Ledger
from governance.errors import DocumentFault
from governance.runtime.database import fold_log
from governance.trust.bundle import CountryDocuments
from keys.composite import Identity, PublicIdentity
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.errors import Refusal
from protocols.numerics.noise import NoiseSource
from protocols.wire.encoding import digest

OFFICER_FILES = "*.json"


_log = logging.getLogger("pratique.node")


def log_origin(country: str) -> str:
    """Return the name under which a country's node logs."""
    return f"pratique/{country.lower()}/node"


class Node:
    """A node's parts, put together around one state database."""

    def __init__(
        self,
        home: NodeHome,
        settings: NodeSettings,
        keyring: NodeKeyring,
        engine: Engine,
        *,
        identities: IdentityKeys,
        pinned_root: bytes | None,
        fetch: Fetch,
        noise: NoiseSource,
        clock: Clock,
        slots: ReplySlots | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        monotonic: Callable[[], float] = time.monotonic,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        """`fetch` reads one published file through the exchange, or raises LinkFault."""
        self._home, self._settings, self._engine = home, settings, engine
        self._fetch, self._clock, self._monotonic = fetch, clock, monotonic
        self.documents = DocumentStore(
            engine,
            country=settings.country,
            officer_key=VerifyKey.from_text(settings.officer_key),
            pinned_root=pinned_root,
            on_new_key=self._note_new_key,
        )
        self.log = AuditLog(engine, log_origin(settings.country), keyring.log)
        self.ledger, self.pause_switch = Ledger(engine), PauseSwitch(engine)
        self.record_store = RecordStore(settings, keyring.split)
        self.decisions = DecisionLog(self.log, self.now, settings.country)
        self.runs = RunStore(engine, keyring.sealing)
        self.log_head = LogHeadGuard(home, engine, self.log)
        self._identities, self._journal = identities, ReplyJournal(engine)
        self._run_expiry = RunExpiry(
            engine, runs=self.runs, journal=self._journal, decisions=self.decisions
        )
        self._request_handler = self._received(noise, slots or ReplySlots(), entropy, failpoint)
        self.status_report = StatusReport(
            settings,
            engine,
            identities=identities,
            documents=self.documents,
            record_store=self.record_store,
            ledger=self.ledger,
            runs=self.runs,
            journal=self._journal,
            pause=self.pause_switch,
            decisions=self.decisions,
            log=self.log,
            clock=clock,
        )

    def _received(
        self,
        noise: NoiseSource,
        slots: ReplySlots,
        entropy: Callable[[int], bytes],
        failpoint: FailpointHook,
    ) -> RequestHandler:
        journal = self._journal
        recheck = PermissionRecheck(self.documents, self.pause_switch, self._clock)
        outbox = Outbox(
            self._engine,
            journal=journal,
            runs=self.runs,
            recheck=recheck,
            decisions=self.decisions,
            failpoint=failpoint,
        )
        released: dict[str, Any] = {
            "ledger": self.ledger,
            "decisions": self.decisions,
            "holdings": self.record_store,
            "noise": noise,
            "entropy": entropy,
            "reach": failpoint,
        }
        gate = Gate(
            country=self._settings.country,
            identities=self._identities,
            person_register=self._settings.person_register,
            documents=self.documents,
            record_store=self.record_store,
            pause=self.pause_switch,
            journal=journal,
            runs=self.runs,
            ledger=self.ledger,
            sync=self.sync,
            clock=self._clock,
            monotonic=self._monotonic,
        )
        return RequestHandler(
            gate=gate,
            floor=CohortFloor(self._engine, recheck=recheck, **released),
            door=Door(self._engine, outbox=outbox, **released),
            outbox=outbox,
            decisions=self.decisions,
            log_head=self.log_head,
            slots=slots,
            failpoint=failpoint,
        )

    def now(self) -> datetime:
        """Return the time, never earlier than the latest signed time seen."""
        return self.documents.not_before(self._clock())

    def handle(self, frame: bytes) -> bytes:
        """Return the reply to a frame of the coordinator's."""
        return self._request_handler.handle(frame)

    def sync(self) -> None:
        """Fetch the published documents. Raises DocumentFault, LinkFault."""
        self.documents.sync(self._fetch, self._clock())
        self._change_identity()

    def tend(self) -> None:
        """Do what needs doing now and then; what goes wrong is kept for `status`."""
        self._collect_officer_files()
        self.record_store.refresh()
        self._tidy()
        try:
            if self._settings.enrolment is not None:
                self.sync()
            self._prepare_permitted()
        except RecordFault:
            return  # it may quote a record; the holdings have logged that there is one
        except PratiqueError as fault:
            _log.warning("documents not synced", extra={"what": fault.what, "why": fault.why})

    def _tidy(self) -> None:
        """Let go of what nobody needs any more, and write down what was only counted."""
        for part in (self.decisions.settle, self._end_runs, self._fold, self._move_head):
            try:
                part()
            except PratiqueError as fault:
                _log.error("state not tidied", extra={"what": fault.what, "why": fault.why})

    def _fold(self) -> None:
        fold_log(self._engine)

    def _move_head(self) -> None:
        self.log_head.move()
        self._forget_identities()

    def deliver(self, bundle: bytes) -> CountryDocuments:
        """Take the own country's documents from its officer. Raises DocumentFault."""
        own = self._take(bundle)
        self._change_identity()
        self.log_head.move()  # a copy from before the officer's word must not pass for the newest
        return own

    def _take(self, bundle: bytes) -> CountryDocuments:
        before = self._own()
        try:
            own = self.documents.deliver(bundle, self._clock())
        except DocumentFault:
            self._note(EventKind.DOCUMENTS_REFUSED, bundle, Outcome.REFUSED)
            raise
        self._note(EventKind.DOCUMENTS_ACCEPTED, bundle, Outcome.DONE)
        self._note_decisions(before, own)
        return own

    @property
    def officer(self) -> str:
        """The fingerprint of the key that the own officer signs with."""
        return self.documents.officer.present.fingerprint

    def _note_new_key(self, former: VerifyKey, new: VerifyKey, connection: Connection) -> None:
        """Say whose word counts from now on; the entry names the new key by its digest."""
        subject = Subject(body=digest(new.to_text().encode()))
        self.decisions.event(
            EventKind.OFFICER_KEY_CHANGED,
            subject,
            actor=former.fingerprint,
            outcome=Outcome.DONE,
            connection=connection,
        )
        said = f"from {former.fingerprint} to {new.fingerprint}, signed by the former one"
        _log.warning("the officer's key has changed", extra={"what": said})

    def _change_identity(self) -> None:
        """Sign with the next key once the own officer and what is published both name it."""
        following = self._identities.following
        if following is None:
            return
        named, own = following.public.to_text(), self._own()
        if own is None or own.node is None or own.node.identity_key != named:
            return
        try:
            shown = self.documents.view(self._clock()).node_keys(self._settings.country)
        except DocumentFault:
            return
        if shown is not None and shown.identity_key == named:
            self._identities.move(self._note_identity)

    def _note_identity(self, former: Identity, new: Identity) -> None:
        self._note_key(EventKind.NODE_KEY_CHANGED, new.public)
        said = f"from {former.public.fingerprint} to {new.public.fingerprint}"
        _log.warning("the node's key has changed", extra={"what": said})

    def _forget_identities(self) -> None:
        """Destroy the former keys that no live run began with; none while one cannot be read."""
        with contextlib.suppress(Refusal):
            live = [self.runs.live(run.run) for run in self.runs.summaries(live=True)]
            self._identities.forget_all_but({r.peers.get(self._settings.country, "") for r in live})

    def approve_key(self, country: str, fingerprint: str) -> VerifyKey:
        """Accept another country's changed key. Raises DocumentFault where it is not in force."""
        key = self.documents.approve_key(country, fingerprint, self._clock())
        self._note_key(EventKind.KEY_APPROVED, key)
        return key

    def pin_officer(self, key: VerifyKey) -> None:
        """Trust another key of the own officer, from the settings on."""
        self._settings = self._settings.model_copy(update={"officer_key": key.to_text()})
        self._home.write_settings(self._settings)
        self.documents.pin_officer(key)
        self._note_key(EventKind.OFFICER_KEY_CHANGED, key)

    def _note_key(self, kind: EventKind, key: PublicIdentity) -> None:
        subject = Subject(body=digest(key.to_text().encode()))
        self.decisions.event(kind, subject, outcome=Outcome.DONE)

    def _note(self, kind: EventKind, bundle: bytes, outcome: Outcome) -> None:
        subject = Subject(body=digest(bundle))
        self.decisions.event(kind, subject, actor=self.officer, outcome=outcome)

    def _note_decisions(self, before: CountryDocuments | None, own: CountryDocuments) -> None:
        for kind, now_held, held in (
            (EventKind.PERMIT_ACCEPTED, own.permits, before.permits if before else {}),
            (EventKind.WITHDRAWAL_ACCEPTED, own.withdrawals, before.withdrawals if before else {}),
        ):
            for study, document in now_held.items():
                if held.get(study) != document:
                    subject = Subject(study=study, body=document.digest)
                    self.decisions.event(kind, subject, actor=self.officer, outcome=Outcome.DONE)

    def _own(self) -> CountryDocuments | None:
        try:
            return self.documents.own(self._clock())
        except DocumentFault:
            return None

    def _collect_officer_files(self) -> None:
        """Take what the officer left while nobody was there to receive it."""
        for file in sorted(self._home.officer.glob(OFFICER_FILES)):
            try:
                self._take(file.read_bytes())
                file.unlink()
            except (PratiqueError, OSError) as fault:
                _log.error("officer's file refused", extra={"path": file.name, "why": str(fault)})
                file.replace(file.with_suffix(".refused"))

    def _end_runs(self) -> None:
        """Erase what no message is awaited for any more, be the coordinator there or not."""
        own, now = self._own(), self.now()
        if own is not None:
            self._run_expiry.end_forbidden(own, now)
        self._run_expiry.end_silent(now)

    def prepare(self) -> None:
        """Be ready for the first message; what stands in the way is told by the tending."""
        with contextlib.suppress(PratiqueError):
            self._prepare_permitted()

    def _prepare_permitted(self) -> None:
        """So that a first message waits neither for the accountant nor for the cohort."""
        held = self.documents.held(self._clock())
        for study in held.view.studies.values():
            permit, withdrawal = held.own.permit(study.digest), held.own.withdrawal(study.digest)
            if study_status(study, permit, withdrawal, held.view.now) != PERMITTED:
                continue
            if study.priced:
                epsilon(study.mechanisms, held.view.agreement.honest, study.privacy.delta)
            self.record_store.prepared(study)

    def pause(self, reason: str) -> None:
        """Refuse every message until `resume`."""
        self.pause_switch.set(reason, self.now())
        self._note_own(EventKind.NODE_PAUSED)

    def resume(self) -> None:
        """Take part again."""
        self.pause_switch.clear()
        self._note_own(EventKind.NODE_RESUMED)

    def restore(self) -> Restored:
        """Make state safe that was put back from an older copy; the daemon must not run.

        Raises DocumentFault, LinkFault or OperationFault; until it is repeated with success, the
        node does not start.
        """
        restoration = Restoration(
            self._engine,
            country=self._settings.country,
            documents=self.documents,
            ledger=self.ledger,
            runs=self.runs,
            journal=self._journal,
            decisions=self.decisions,
            log=self.log,
            log_head=self.log_head,
            clock=self.now,
        )
        restoration.begin()
        self._collect_officer_files()
        restoration.require_signed_since()
        self.sync()
        return restoration.complete()

    def note_start(self) -> None:
        """Log that the daemon has started. Raises OperationFault where its state is no newest."""
        self.log_head.move()
        fold_log(self._engine)
        self._note_own(EventKind.NODE_STARTED)

    def note_stop(self) -> None:
        """Log that the daemon ends, and first what was only counted until now."""
        self.decisions.settle(ending=True)
        self._note_own(EventKind.NODE_STOPPED)
        self.log_head.move()

    def _note_own(self, kind: EventKind) -> None:
        self.decisions.event(kind, Subject(), outcome=Outcome.DONE)

    def status(self, link: LinkStatus) -> dict[str, Any]:
        """Return where the node stands, for its operator only."""
        return self.status_report.status(link)

    def log_entries(self, start: int = 0, end: int | None = None) -> dict[str, Any]:
        """Return exported log lines start ≤ index < end, with the signed checkpoint."""
        return exported(self.log, start, end)
