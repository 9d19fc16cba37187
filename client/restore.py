"""`pratique-node restored`: recovers a node whose state was restored from an older copy.

Charges made after the copy are in no ledger. But a permit is for one charged run and one noisy
count (`client.border.gate`, clause node/permit-used), and the officer's newest documents state how
many permits each study has had. So no more runs can have been charged than there were permits.
Every run that the ledger does not know is charged now, even beyond the cap, and its permit counts
as used. Live runs end: what they sent after the copy is not known, and no noise may be drawn for
them a second time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from client.documents.store import CurrentDocuments
from client.errors import NodeFault
from client.parts import NodeParts
from client.state.decision_log import Subject
from client.state.key_value import get_value, set_value
from client.state.log_head import RESTORING
from client.state.restored import RESTORED, Restored
from client.state.state_check import row_names
from governance.audit.events import Event, EventKind, Outcome
from governance.budget.ledger import LedgerEntry, ledger_entries
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import ledger_terms
from governance.runtime.database import fold_log, transaction
from governance.trust.bundle import CountryDocuments
from keys.derive import labelled_hash
from protocols.numerics.mechanism import Mechanism
from protocols.tasks.schedule import COHORT_FLOOR

RUN_LABEL = "pratique/restored-run/v1"
RUN_PREFIX, RUN_DIGITS = "restored-", 23
LONG_AGO = datetime.min.replace(tzinfo=UTC)
WRITTEN_BY_COMMANDS = frozenset(
    {
        EventKind.NODE_INITIALISED,
        EventKind.NODE_ENROLLED,
        EventKind.OPT_OUTS_CONFIRMED,
        EventKind.MODEL_CALIBRATED,
        EventKind.CALIBRATION_REFUSED,
    }
)
"""The kinds of log entries that commands write; the daemon need not run."""


@dataclass(frozen=True)
class MissedRun:
    """A run that may have been charged after the copy; `run` is a made-up name, not a run id."""

    study: Study
    run: str
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True)
class _Beginning:
    """The time of a restoration, since which no reply was sent; time and size of the copy."""

    since: str
    copied: str
    size: int


class Restoration:
    """Recovers the restored state of one node. Its daemon must not run."""

    def __init__(self, parts: NodeParts) -> None:
        self._engine, self._country = parts.engine, parts.settings.country
        self._documents, self._ledger = parts.documents, parts.ledger
        self._runs, self._journal, self._decisions = parts.runs, parts.journal, parts.decisions
        self._log, self._log_head, self._clock = parts.log, parts.log_head, parts.now

    def begin(self) -> None:
        """Store the time of the start: documents signed later name every permit.

        Raises LogFault or StorageFault if the copy was changed by another program.
        """
        self._log_head.take_over()
        size = self._log.size()
        beginning = _Beginning(self._clock().isoformat(), self._copied_at(size), size)
        with transaction(self._engine) as connection:
            if get_value(connection, RESTORING) is None:
                set_value(connection, RESTORING, json.dumps(asdict(beginning)))

    def complete(self) -> Restored:
        """End live runs and charge missed runs in one transaction; then accept this log as newest.

        Raises DocumentFault or NodeFault if the documents are too old, or if a study is not
        published; then nothing has changed.
        """
        beginning = self.require_signed_since()
        documents = self._documents.current(self._clock())
        _require_readable(documents.own)
        missed = missed_runs(
            list(documents.own.permits.values()),
            documents.view.studies,
            self._ledger.entries(),
            copied=datetime.fromisoformat(beginning.copied),
            size=beginning.size,
        )
        with transaction(self._engine) as connection:
            ended = self._end_runs(connection, documents.view.now)
            for run in missed:
                self._charge(run, documents, connection)
            outcome = self._store_outcome(beginning.size, ended, missed, connection)
        self._log_head.accept()
        fold_log(self._engine)
        return outcome

    def require_signed_since(self) -> _Beginning:
        """Raise NodeFault unless the officer's documents were signed after `begin`."""
        with transaction(self._engine) as connection:
            stored = get_value(connection, RESTORING)
        beginning = None if stored is None else _Beginning(**json.loads(stored))
        signed = self._signed_at()
        if beginning and signed and signed > datetime.fromisoformat(beginning.since):
            return beginning
        raise NodeFault(
            "The officer must sign new documents before this command can continue",
            why="documents signed before the first run of this command may lack permits that were "
            "given after the copy was made",
            fix="ask your officer to run `pratique-officer renew` (with --node, or --bundle-out "
            "and `pratique-node accept` here), then run `pratique-node restored` again",
        )

    def _signed_at(self) -> datetime | None:
        """Return when the officer's documents were signed; None if they are not valid."""
        try:
            return self._documents.own(self._clock()).signed_at
        except DocumentFault:
            return None

    def _copied_at(self, size: int) -> str:
        """Return when the node wrote its last log entry of the copy; long ago if not known.

        If the state counts as the newest, it may have continued after it was restored. Entries of
        commands are skipped: they may be from after the copy was restored.
        """
        if not self._log_head.shows_newest():
            for index in reversed(range(size)):
                entry = json.loads(next(self._log.entries(index, index + 1)))
                if entry["kind"] not in WRITTEN_BY_COMMANDS:
                    return str(entry["at"])
        return LONG_AGO.isoformat()

    def _end_runs(self, connection: Connection, now: datetime) -> int:
        live = self._runs.summaries(live=True, connection=connection)
        for run in live:
            rows = self._runs.end(run.run, now, connection)
            self._journal.forget(run.run, connection)
            subject = Subject(study=run.study, run=run.run)
            self._log_event(EventKind.RUN_ENDED, subject, connection, rows)
        return len(live)

    def _charge(
        self, missed: MissedRun, documents: CurrentDocuments, connection: Connection
    ) -> None:
        study, now = missed.study, documents.view.now
        register = study.population.register_name
        known = self._documents.periods_known_since(register, connection)
        self._ledger.assume(
            ledger_terms(documents.view.agreement, register, now, known=known),
            study=study.digest,
            run=missed.run,
            mechanisms=missed.mechanisms,
            now=now,
            accounting=study.accounting,
            connection=connection,
        )
        names = row_names(connection, ledger_entries, ledger_entries.c.run == missed.run)
        self._log_event(EventKind.BUDGET_CHARGED, Subject(study=study.digest), connection, names)

    def _log_event(
        self,
        kind: EventKind,
        subject: Subject,
        connection: Connection,
        rows: tuple[str, ...] = (),
    ) -> None:
        self._decisions.event(kind, subject, outcome=Outcome.DONE, rows=rows, connection=connection)

    def _store_outcome(
        self, size: int, ended: int, missed: Sequence[MissedRun], connection: Connection
    ) -> Restored:
        before, now = self._log_head.known_size(), self._clock()
        outcome = Restored(
            at=now.isoformat(timespec="seconds"),
            entries=size,
            before=before,
            ended=ended,
            assumed=tuple(run.study.id for run in missed),
        )
        event = Event(
            kind=EventKind.STATE_RESTORED, at=now, actor=self._country, reason=outcome.sentence()
        )
        self._log.append(event, connection)
        set_value(connection, RESTORED, json.dumps(asdict(outcome)))
        set_value(connection, RESTORING, None)
        return outcome


def _require_readable(own: CountryDocuments) -> None:
    """Raise NodeFault if a document cannot be read: no permit counts then, and none is assumed."""
    if own.fault:
        raise NodeFault(
            own.fault,
            why="without the permits it is not known what may have been spent",
            fix="have your officer sign documents that this version can read, or install the "
            "version that can read them; then run `pratique-node restored` again",
        )


def missed_runs(
    permits: Sequence[Permit],
    studies: Mapping[str, Study],
    known: Sequence[LedgerEntry],
    *,
    copied: datetime,
    size: int,
) -> list[MissedRun]:
    """Return every run that may have been charged and that the ledger does not know.

    `known` are the ledger entries of the copy, which has all charges until `copied`. `size` is the
    copy's number of log entries. Raises NodeFault if a permitted study is not published.
    """
    missed: list[MissedRun] = []
    for permit in sorted(permits, key=lambda permit: permit.study):
        if permit.conditions.expires > copied:  # otherwise it had ended, and the copy has all of it
            study = studies.get(permit.study)
            if study is None:
                raise _unpublished(permit.study)
            charged = [entry for entry in known if entry.study == permit.study]
            missed += _missed_runs_of(permit, study, charged, size)
    return missed


def _missed_runs_of(
    permit: Permit, study: Study, charged: Sequence[LedgerEntry], size: int
) -> list[MissedRun]:
    """Return the runs of a study that may be missing, at least that of an unused newest permit."""
    counts = [entry for entry in charged if entry.phase == COHORT_FLOOR]
    run_entries = [entry for entry in charged if entry.phase != COHORT_FLOOR]
    unused = all(entry.created < permit.issued for entry in run_entries)
    not_counted = all(entry.created < permit.issued for entry in counts)
    runs = max(permit.number - len({entry.run for entry in run_entries}), int(unused))
    uncounted = max(permit.number - len(counts), int(not_counted))
    by_run = study.charged_by_run
    with_count = tuple(mechanism for mechanism in study.mechanisms if mechanism.costs)
    return [
        MissedRun(study, _run_name(permit, n, size), with_count if n < uncounted else by_run)
        for n in range(runs if by_run else 0)
    ]


def _run_name(permit: Permit, number: int, size: int) -> str:
    parts = permit.digest.encode(), str(number).encode(), str(size).encode()
    return RUN_PREFIX + labelled_hash(RUN_LABEL, *parts).hex()[:RUN_DIGITS]


def _unpublished(study: str) -> NodeFault:
    return NodeFault(
        f"The officer has permitted a study that is not published: {study}",
        why="without the study, its cost is not known",
        fix="ask the coordinator to publish it again, then run `pratique-node restored` again",
    )
