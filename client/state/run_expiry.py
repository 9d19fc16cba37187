"""Erases the secrets of runs that are idle or no longer permitted.

A coordinator may never report that a round is void, that a run has ended, or that it has stopped
itself. So elapsed time decides, together with the documents of the node's country. Another thread
answers messages at the same time; so everything that decides about a run is read in the transaction
that ends it. A fault in one run does not prevent the end of another.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from client.state.decision_log import DecisionLog, Subject
from client.state.reply_journal import ReplyJournal
from client.state.runs import RunStore, RunSummary
from governance.audit.events import EventKind, Outcome
from governance.runtime.database import transaction
from governance.trust.bundle import CountryDocuments
from keys.errors import PratiqueError

LONGEST_SILENCE = timedelta(days=7)
"""A run without a message for longer is void; a coordinator that returns must begin a new one."""
LONGEST_OPEN = timedelta(days=1)
"""A round that was not answered for longer is void. If the coordinator was away, the documents that
could allow the round have expired by then: it signs once a day that they are fresh. A run that
cannot be read has the same time, because a start with another program version, or with other keys,
can still be corrected."""

REPLACED = "Another run of this study was entered under the same permit"
UNREADABLE = "The stored state of the run cannot be read, and the run cannot continue"

_log = logging.getLogger("pratique.node")


class RunExpiry:
    """Ends the runs and rounds of one node that nobody else would end."""

    def __init__(
        self, engine: Engine, *, runs: RunStore, journal: ReplyJournal, decisions: DecisionLog
    ) -> None:
        self._engine, self._runs = engine, runs
        self._journal, self._decisions = journal, decisions
        self._reported: set[str] = set()

    def end_silent(self, now: datetime) -> None:
        """End runs without a message for a week; erase the secrets of rounds open for a day.

        A run whose state cannot be read for a day ends too: nobody else would ever erase it.
        """
        self._journal.forget_ended(now - LONGEST_SILENCE)
        self._for_each_live_run(lambda run, connection: self._end_if_silent(run, now, connection))

    def end_forbidden(self, own: CountryDocuments, now: datetime) -> None:
        """End the runs whose study the node's country no longer permits.

        If one of its documents cannot be read, no permit counts, which may pass: only a withdrawal
        ends a run then.
        """

        def end_if_forbidden(run: RunSummary, connection: Connection) -> None:
            permit = own.permit(run.study)
            permitted = bool(own.fault) or (permit is not None and now < permit.conditions.expires)
            if own.withdrawal(run.study) is not None or not permitted:
                self._end(run, now, connection)

        self._for_each_live_run(end_if_forbidden)

    def end_replaced(
        self,
        study: str,
        now: datetime,
        connection: Connection,
        *,
        charged: Callable[[str], bool],
    ) -> None:
        """End the live runs of a study that were not charged, in the caller's transaction."""
        for run in self._runs.summaries(live=True, connection=connection):
            if run.study == study and not charged(run.run):
                self._end(run, now, connection, REPLACED)

    def _for_each_live_run(self, action: Callable[[RunSummary, Connection], None]) -> None:
        """Apply the action to every live run; log a fault in one of them and continue."""
        for run in self._runs.summaries(live=True):
            try:
                with transaction(self._engine) as connection:
                    action(run, connection)
            except PratiqueError as fault:
                fields = {"run": run.run, "what": fault.what, "why": fault.why}
                _log.error("a run was not tidied", extra=fields)

    def _end_if_silent(self, run: RunSummary, now: datetime, connection: Connection) -> None:
        silence = now - (self._journal.latest(run.run, connection) or run.created)
        if silence > LONGEST_SILENCE:
            self._end(run, now, connection)
        elif not self._runs.readable(run.run, connection):
            self._report_unreadable(run)
            if silence > LONGEST_OPEN:
                self._end(run, now, connection, UNREADABLE)
        elif silence > LONGEST_OPEN:
            self._runs.erase_open_round(run.run, connection)

    def _report_unreadable(self, run: RunSummary) -> None:
        """Log once that a run cannot be read, while the cause can still be corrected."""
        if run.run not in self._reported:
            _log.error("a run cannot be read, and ends after a silent day", extra={"run": run.run})
        self._reported.add(run.run)

    def _end(
        self, run: RunSummary, now: datetime, connection: Connection, reason: str | None = None
    ) -> None:
        """End the run, unless another thread has already ended it."""
        rows = self._runs.end(run.run, now, connection)
        if not rows:
            return
        self._journal.forget(run.run, connection)
        self._decisions.event(
            EventKind.RUN_ENDED,
            Subject(study=run.study, run=run.run),
            outcome=Outcome.DONE,
            reason=reason,
            rows=rows,
            connection=connection,
        )
