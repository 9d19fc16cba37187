"""The last step before a reply leaves: journal, run state and log entry in one transaction.

Every reply that is not a refusal comes out of `keep`. If `keep` returns, the reply is on disk; if
it raises, nothing was stored and nothing leaves. Since the gate admitted the request, other threads
may have changed the facts. So `keep` raises if the officer has withdrawn or changed the permit, if
the operator has paused the node, or if the run has ended.
"""

from sqlalchemy import Connection, Engine

from client.border.admission import Admission
from client.border.failpoints import Failpoint, FailpointHook, no_failpoint
from client.border.recheck import PermissionRecheck
from client.border.run_limit import RunLimit
from client.state.decision_log import DecisionLog
from client.state.reply_journal import ReplyJournal
from client.state.runs import RunRecord, RunStore
from client.state.state_check import row_names
from client.state.tables import journal
from governance.audit.events import EventKind, Outcome
from governance.runtime.database import fold_log, transaction


class Outbox:
    """Makes replies final. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        *,
        journal: ReplyJournal,
        runs: RunStore,
        recheck: PermissionRecheck,
        limit: RunLimit,
        decisions: DecisionLog,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        self._engine, self._journal = engine, journal
        self._runs, self._recheck = runs, recheck
        self._decisions, self._limit, self._failpoint = decisions, limit, failpoint

    def keep(
        self,
        admission: Admission,
        reply: bytes,
        kind: EventKind,
        *,
        data_version: str,
        split: str = "",
        reason: str | None = None,
    ) -> bytes:
        """Return the reply once it, the run's next state and its log entry are durable.

        `split` is the digest that a run is entered with; later replies keep it.
        Raises Refusal if the country's officer, its operator or the end of the run forbids it now.
        """
        self._failpoint(Failpoint.OUTBOX_MADE)
        with transaction(self._engine) as connection:
            self._recheck.require(admission, connection)
            names = self._write_journal(admission, reply, connection)
            self._failpoint(Failpoint.OUTBOX_JOURNALLED)
            self._advance(admission, data_version, split, connection)
            self._failpoint(Failpoint.OUTBOX_ADVANCED)
            self._decisions.event(
                kind,
                admission.subject,
                outcome=Outcome.DONE,
                policies=admission.assessment.clauses,
                documents=admission.documents.versions,
                reply=reply,
                reason=reason,
                rows=names,
                connection=connection,
            )
            self._failpoint(Failpoint.OUTBOX_LOGGED)
            if self._finished(admission):
                self._end(admission, connection)
                self._failpoint(Failpoint.OUTBOX_ENDED)
        fold_log(
            self._engine
        )  # so that no copy of the last state, with its keys, stays in the write-ahead log
        self._failpoint(Failpoint.OUTBOX_KEPT)
        return reply

    def _write_journal(
        self, admission: Admission, reply: bytes, connection: Connection
    ) -> tuple[str, ...]:
        """Write the reply at its place; return the digest by which the log names the row."""
        place = admission.place
        self._journal.write(
            place,
            admission.request.digest,
            context=admission.context,
            reply=reply,
            now=admission.documents.view.now,
            connection=connection,
        )
        self._journal.forget(place.run, connection, before=place.round - 1)
        columns = journal.c
        wanted = columns.run_id == place.run, columns.round == place.round
        return row_names(connection, journal, *wanted, columns.phase == place.phase)

    def _advance(
        self, admission: Admission, data_version: str, split: str, connection: Connection
    ) -> None:
        """Replace the last state of the run with the next one, or enter the run with its first."""
        record = RunRecord(
            run=admission.place.run,
            study=admission.study.digest,
            roster=admission.roster,
            data_version=data_version,
            state=admission.run.to_bytes(),
            peers=admission.peers,
            split=split if admission.record is None else admission.record.split,
        )
        if admission.record is None:
            self._limit.end_replaced(admission, connection)
            self._runs.enter(record, admission.documents.view.now, connection)
        else:
            self._runs.replace(record, connection)

    def _end(self, admission: Admission, connection: Connection) -> None:
        rows = self._runs.end(admission.place.run, admission.documents.view.now, connection)
        self._decisions.event(
            EventKind.RUN_ENDED,
            admission.subject,
            outcome=Outcome.DONE,
            rows=rows,
            connection=connection,
        )

    def _finished(self, admission: Admission) -> bool:
        """Return whether the last round of the schedule is answered.

        Earlier rounds may have continued without this country, or may have been void.
        """
        run = admission.run
        if run.round_number == 0 or run.awaits_answer:
            return False
        return run.round_number >= sum(
            m.rounds for m in admission.study.mechanisms if m.leaves_country
        )
