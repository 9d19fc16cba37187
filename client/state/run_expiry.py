"""Secrets of runs that lie still are erased, although nobody says that a run or a round is over.

A coordinator need not tell that a round is void, that a run has ended, or that it is gone for good:
time tells, and so do the own country's documents. Messages are answered meanwhile, in another
thread: what decides about a run is read in the transaction that ends it. Whatever goes wrong with
one run keeps no other one from ending.
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
"""A run without a message for longer is void; a coordinator that comes back begins a new one."""
LONGEST_OPEN = timedelta(days=1)
"""A round that was not answered for longer is void. Documents that could allow it have expired by
then where a coordinator was away: it signs that they are fresh once a day. A run that cannot be
read has as long: a start of another program version, or with other keys, may be put right."""

UNREADABLE = "What this node keeps of the run cannot be read, and could not be used any more"

_log = logging.getLogger("pratique.node")


class RunExpiry:
    """What a node gives up by itself."""

    def __init__(
        self, engine: Engine, *, runs: RunStore, journal: ReplyJournal, decisions: DecisionLog
    ) -> None:
        self._engine, self._runs = engine, runs
        self._journal, self._decisions = journal, decisions
        self._reported: set[str] = set()

    def end_silent(self, now: datetime) -> None:
        """End the runs in which nobody spoke for a week, and give up rounds open for a day.

        A run whose state cannot be read for a day ends: nobody else would ever erase it.
        """
        self._journal.forget_ended(now - LONGEST_SILENCE)
        self._each(lambda run, connection: self._lapse(run, now, connection))

    def end_forbidden(self, own: CountryDocuments, now: datetime) -> None:
        """End the runs whose study the own country does not permit any more."""

        def end(run: RunSummary, connection: Connection) -> None:
            permit = own.permit(run.study)
            permitted = permit is not None and now < permit.conditions.expires
            if own.withdrawal(run.study) is not None or not permitted:
                self._end(run, now, connection)

        self._each(end)

    def _each(self, act: Callable[[RunSummary, Connection], None]) -> None:
        """Do it to every live run, whatever goes wrong with one of them."""
        for run in self._runs.summaries(live=True):
            try:
                with transaction(self._engine) as connection:
                    act(run, connection)
            except PratiqueError as fault:
                said = {"run": run.run, "what": fault.what, "why": fault.why}
                _log.error("a run was not tidied", extra=said)

    def _lapse(self, run: RunSummary, now: datetime, connection: Connection) -> None:
        quiet = now - (self._journal.latest(run.run, connection) or run.created)
        if quiet > LONGEST_SILENCE:
            self._end(run, now, connection)
        elif not self._runs.readable(run.run, connection):
            self._report(run)
            if quiet > LONGEST_OPEN:
                self._end(run, now, connection, UNREADABLE)
        elif quiet > LONGEST_OPEN:
            self._runs.give_up_round(run.run, connection)

    def _report(self, run: RunSummary) -> None:
        """Say once that a run cannot be read, while it can still be put right."""
        if run.run not in self._reported:
            _log.error("a run cannot be read, and ends after a silent day", extra={"run": run.run})
        self._reported.add(run.run)

    def _end(
        self, run: RunSummary, now: datetime, connection: Connection, reason: str | None = None
    ) -> None:
        """End the run, unless another thread has."""
        if not self._runs.end(run.run, now, connection):
            return
        self._journal.forget(run.run, connection)
        self._decisions.event(
            EventKind.RUN_ENDED,
            Subject(study=run.study, run=run.run),
            outcome=Outcome.DONE,
            reason=reason,
            connection=connection,
        )
