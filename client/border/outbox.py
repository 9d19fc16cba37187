"""The last step before a reply leaves: journal, run state and log entry in one transaction.

Every reply that is no refusal comes out of `keep`. What it returns is on disk; where it raises,
nothing was kept and nothing leaves. It raises where the own officer has withdrawn or decided anew,
the operator has paused the node or the run has ended since the gate let the request in, in other
threads.
"""

from sqlalchemy import Connection, Engine

from client.border.admission import Admission
from client.border.failpoints import Failpoint, FailpointHook, no_failpoint
from client.border.recheck import PermissionRecheck
from client.state.decision_log import DecisionLog
from client.state.reply_journal import ReplyJournal
from client.state.runs import RunRecord, RunStore
from governance.audit.events import EventKind, Outcome
from governance.runtime.database import fold_log, transaction


class Outbox:
    """Makes replies final. Safe among threads."""

    def __init__(
        self,
        engine: Engine,
        *,
        journal: ReplyJournal,
        runs: RunStore,
        recheck: PermissionRecheck,
        decisions: DecisionLog,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        self._engine, self._journal = engine, journal
        self._runs, self._recheck = runs, recheck
        self._decisions, self._failpoint = decisions, failpoint

    def keep(
        self,
        admission: Admission,
        reply: bytes,
        kind: EventKind,
        *,
        data_version: str,
        reason: str | None = None,
    ) -> bytes:
        """Return the reply once it, the run's next state and its log entry are durable.

        Raises Refusal where the country's own people, or the end of the run, have forbidden it
        meanwhile.
        """
        self._failpoint(Failpoint.OUTBOX_MADE)
        with transaction(self._engine) as connection:
            self._recheck.require(admission, connection)
            self._journalled(admission, reply, connection)
            self._failpoint(Failpoint.OUTBOX_JOURNALLED)
            self._advance(admission, data_version, connection)
            self._failpoint(Failpoint.OUTBOX_ADVANCED)
            self._decisions.event(
                kind,
                admission.subject,
                outcome=Outcome.DONE,
                policies=admission.assessment.clauses,
                documents=admission.held.versions,
                reply=reply,
                reason=reason,
                connection=connection,
            )
            self._failpoint(Failpoint.OUTBOX_LOGGED)
            if self._finished(admission):
                self._end(admission, connection)
                self._failpoint(Failpoint.OUTBOX_ENDED)
        fold_log(self._engine)  # so that no copy of the last state, and its keys, is left there
        self._failpoint(Failpoint.OUTBOX_KEPT)
        return reply

    def _journalled(self, admission: Admission, reply: bytes, connection: Connection) -> None:
        place = admission.place
        self._journal.write(
            place,
            admission.request.digest,
            context=admission.context,
            reply=reply,
            now=admission.held.view.now,
            connection=connection,
        )
        self._journal.forget(place.run, connection, before=place.round - 1)

    def _advance(self, admission: Admission, data_version: str, connection: Connection) -> None:
        """Put the run's next state in place of the last one, or enter the run with its first."""
        record = RunRecord(
            run=admission.place.run,
            study=admission.study.digest,
            roster=admission.roster,
            data_version=data_version,
            state=admission.run.to_bytes(),
            peers=admission.peers,
        )
        if admission.record is None:
            self._runs.enter(record, admission.held.view.now, connection)
        else:
            self._runs.replace(record, connection)

    def _end(self, admission: Admission, connection: Connection) -> None:
        self._runs.end(admission.place.run, admission.held.view.now, connection)
        self._decisions.event(
            EventKind.RUN_ENDED, admission.subject, outcome=Outcome.DONE, connection=connection
        )

    def _finished(self, admission: Admission) -> bool:
        """Whether the schedule's last round is answered.

        Earlier ones may have gone on without this country, or have been void.
        """
        run = admission.run
        if run.round_number == 0 or run.awaits_answer:
            return False
        return run.round_number >= sum(m.rounds for m in admission.study.mechanisms if m.leaves)
