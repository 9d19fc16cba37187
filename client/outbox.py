"""The last step before a reply leaves: journal, run state and log entry in one transaction.

Every reply that is no refusal comes out of `keep`. What it returns is on disk; where it raises,
nothing was kept and nothing leaves.
"""

from sqlalchemy import Connection, Engine

from client.admission import Admission
from client.decisions import Decisions
from client.journal import CONTRIBUTE, Journal
from client.runs import RunBook, RunRecord
from governance.audit.events import EventKind, Outcome
from governance.database import transaction
from protocols.mechanism import Scope


class Outbox:
    """Makes replies final. Safe among threads."""

    def __init__(
        self, engine: Engine, *, journal: Journal, runs: RunBook, decisions: Decisions
    ) -> None:
        self._engine, self._journal = engine, journal
        self._runs, self._decisions = runs, decisions

    def keep(
        self, admission: Admission, reply: bytes, kind: EventKind, *, data_version: str
    ) -> bytes:
        """Return the reply once it, the run's next state and its log entry are durable."""
        record = RunRecord(
            run=admission.place.run,
            study=admission.study.digest,
            roster=admission.roster,
            data_version=data_version,
            state=admission.run.to_bytes(),
        )
        now = admission.held.view.now
        with transaction(self._engine) as connection:
            self._journal.write(
                admission.place,
                admission.frame,
                context=admission.context,
                reply=reply,
                now=now,
                connection=connection,
            )
            if admission.record is None:
                self._runs.enter(record, now, connection)
            else:
                self._runs.replace(record, connection)
            self._decisions.event(
                kind,
                admission.subject,
                outcome=Outcome.DONE,
                policies=admission.assessment.clauses,
                documents=admission.held.versions,
                reply=reply,
                connection=connection,
            )
            if self._finished(admission, connection):
                self._runs.end(admission.place.run, now, connection)
                self._decisions.event(
                    EventKind.RUN_ENDED,
                    admission.subject,
                    outcome=Outcome.DONE,
                    connection=connection,
                )
        return reply

    def _finished(self, admission: Admission, connection: Connection) -> bool:
        """Whether every round that the schedule has was contributed to, and the last answered."""
        run = admission.run
        if run.round_number == 0 or run.awaits_answer:
            return False
        due = sum(m.rounds for m in admission.study.mechanisms if m.scope is Scope.SHARED)
        return self._journal.count(admission.place.run, CONTRIBUTE, connection) >= due
