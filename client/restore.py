"""`pratique-node restored`: state put back from an older copy, made safe by assuming the worst.

What was charged since the copy is in no ledger. But a permit is for one charged run and one noisy
count (`client.border.gate`, clause node/permit-used), and the officer's newest documents say how
many permits each study has had. So no more runs can have been charged than there were permits;
every one that the ledger does not know is charged now, the cap passed or not, and its permit counts
as used. Live runs end: what they sent since is not known, and nothing may be drawn for them a
second time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from client.documents.store import Held
from client.errors import OperationFault
from client.parts import NodeParts
from client.state.count_id import count_id
from client.state.decision_log import Subject
from client.state.key_value import get_value, set_value
from client.state.log_head import RESTORING
from client.state.restored import RESTORED, Restored
from governance.audit.events import Event, EventKind, Outcome
from governance.budget.ledger import LedgerEntry
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import ledger_terms
from governance.runtime.database import fold_log, transaction
from keys.derive import labelled_hash
from protocols.numerics.mechanism import Mechanism
from protocols.tasks.schedule import COHORT_FLOOR

RUN_LABEL = "pratique/restored-run/v1"
RUN_PREFIX, RUN_DIGITS = "restored-", 23
LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class MissedRun:
    """A run that may have been charged since the copy. `run` names it, and is no run's id."""

    study: Study
    run: str
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True)
class _Begun:
    """Since when nothing can have left, when the copy was made, and how many entries it has."""

    since: str
    copied: str
    size: int


class Restoration:
    """Makes the state of one node safe after it was put back. Its daemon must not run."""

    def __init__(self, parts: NodeParts) -> None:
        self._engine, self._country = parts.engine, parts.settings.country
        self._documents, self._ledger = parts.documents, parts.ledger
        self._runs, self._journal, self._decisions = parts.runs, parts.journal, parts.decisions
        self._log, self._log_head, self._clock = parts.log, parts.log_head, parts.now

    def begin(self) -> None:
        """Note since when nothing can have left: only what is signed later names every permit."""
        size = self._log.size()
        begun = _Begun(self._clock().isoformat(), self._copied(size), size)
        with transaction(self._engine) as connection:
            if get_value(connection, RESTORING) is None:
                set_value(connection, RESTORING, json.dumps(asdict(begun)))

    def complete(self) -> Restored:
        """End live runs and charge missed ones in one transaction; vouch for this log from then on.

        Raises DocumentFault, OperationFault: documents too old, or a study that is not published;
        nothing has changed then.
        """
        begun = self.require_signed_since()
        held = self._documents.held(self._clock())
        missed = missed_runs(
            list(held.own.permits.values()),
            held.view.studies,
            self._ledger.entries(),
            copied=datetime.fromisoformat(begun.copied),
            size=begun.size,
        )
        with transaction(self._engine) as connection:
            ended = self._end_runs(connection, held.view.now)
            for one in missed:
                self._charge(one, held, connection)
            done = self._noted(begun.size, ended, missed, connection)
        self._log_head.accept()
        fold_log(self._engine)
        return done

    def require_signed_since(self) -> "_Begun":
        """Raise OperationFault unless the officer's documents were signed after `begin`."""
        with transaction(self._engine) as connection:
            mark = get_value(connection, RESTORING)
        begun = None if mark is None else _Begun(**json.loads(mark))
        signed = self._signed_at()
        if begun and signed and signed > datetime.fromisoformat(begun.since):
            return begun
        raise OperationFault(
            "Documents that the officer has signed since this command was first run are needed",
            why="earlier ones may lack a permit that was given after the copy was made, and so "
            "what was spent under it",
            fix="let the officer run `pratique-officer renew` (with --node, or with --bundle-out "
            "and `pratique-node accept` here), then run `pratique-node restored` again",
        )

    def _signed_at(self) -> datetime | None:
        """Return when the officer's documents were signed; None where they are of no use."""
        try:
            return self._documents.own(self._clock()).signed_at
        except DocumentFault:
            return None

    def _copied(self, size: int) -> str:
        """Return when the copy's last log entry was made; long ago where that is not known.

        A state that passes for the newest may have gone on after it was put back.
        """
        if size == 0 or self._log_head.vouched():
            return LONG_AGO.isoformat()
        return str(json.loads(next(self._log.entries(size - 1, size)))["at"])

    def _end_runs(self, connection: Connection, now: datetime) -> int:
        live = self._runs.summaries(live=True, connection=connection)
        for run in live:
            self._runs.end(run.run, now, connection)
            self._journal.forget(run.run, connection)
            self._say(EventKind.RUN_ENDED, Subject(study=run.study, run=run.run), connection)
        return len(live)

    def _charge(self, missed: MissedRun, held: Held, connection: Connection) -> None:
        study, now = missed.study, held.view.now
        register = study.population.register_name
        known = self._documents.periods_known_since(register, connection)
        self._ledger.assume(
            ledger_terms(held.view.agreement, register, now, known=known),
            study=study.digest,
            run=missed.run,
            mechanisms=missed.mechanisms,
            now=now,
            connection=connection,
        )
        self._say(EventKind.BUDGET_CHARGED, Subject(study=study.digest), connection)

    def _say(self, kind: EventKind, subject: Subject, connection: Connection) -> None:
        self._decisions.event(kind, subject, outcome=Outcome.DONE, connection=connection)

    def _noted(
        self, size: int, ended: int, missed: Sequence[MissedRun], connection: Connection
    ) -> Restored:
        head, now = self._log_head.known(), self._clock()
        done = Restored(
            at=now.isoformat(timespec="seconds"),
            entries=size,
            before=head.size if head else None,
            ended=ended,
            assumed=tuple(one.study.id for one in missed),
        )
        event = Event(
            kind=EventKind.STATE_RESTORED, at=now, actor=self._country, reason=done.sentence()
        )
        self._log.append(event, connection)
        set_value(connection, RESTORED, json.dumps(asdict(done)))
        set_value(connection, RESTORING, None)
        return done


def missed_runs(
    permits: Sequence[Permit],
    studies: Mapping[str, Study],
    known: Sequence[LedgerEntry],
    *,
    copied: datetime,
    size: int,
) -> list[MissedRun]:
    """Return every run that can have been charged and that the ledger does not know.

    `known` are the copy's ledger entries; it holds all that was charged until `copied`; `size` is
    how many log entries it has. Raises OperationFault where a permitted study is not published.
    """
    found = []
    for permit in sorted(permits, key=lambda permit: permit.study):
        if permit.conditions.expires > copied:  # else it had ended, and all of it is in the copy
            study = studies.get(permit.study)
            if study is None:
                raise _unpublished(permit.study)
            charged = [entry for entry in known if entry.study == permit.study]
            found += _missed(permit, study, charged, size)
    return found


def _missed(
    permit: Permit, study: Study, charged: Sequence[LedgerEntry], size: int
) -> list[MissedRun]:
    """Return what may be missing of one study; of the newest permit's run at the very least."""
    counts = {entry.run for entry in charged if entry.phase == COHORT_FLOOR}
    ran = [entry for entry in charged if entry.phase != COHORT_FLOOR]
    unused = all(entry.created < permit.issued for entry in ran)
    runs = max(permit.number - len({entry.run for entry in ran}), int(unused))
    uncounted = max(permit.number - len(counts), int(count_id(permit) not in counts))
    by_run = study.charged_by_run
    whole = tuple(mechanism for mechanism in study.mechanisms if mechanism.costs)
    return [
        MissedRun(study, _run_name(permit, n, size), whole if n < uncounted else by_run)
        for n in range(runs if by_run else 0)
    ]


def _run_name(permit: Permit, number: int, size: int) -> str:
    place = permit.digest.encode(), str(number).encode(), str(size).encode()
    return RUN_PREFIX + labelled_hash(RUN_LABEL, *place).hex()[:RUN_DIGITS]


def _unpublished(study: str) -> OperationFault:
    return OperationFault(
        f"The officer has permitted a study that is not among the published ones: {study}",
        why="without it nobody knows what it may have cost",
        fix="ask the coordinator to publish it again, then run `pratique-node restored` again",
    )
