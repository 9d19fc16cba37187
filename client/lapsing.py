"""Secrets of runs that lie still are erased, although nobody says that a run or a round is over.

A coordinator need not tell that a round is void, that a run has ended, or that it is gone for good:
time tells, and so do the own country's documents.
"""

from datetime import datetime, timedelta

from sqlalchemy import Engine

from client.decisions import Decisions, Subject
from client.journal import Journal
from client.runs import RunBook, RunSummary
from governance.audit.events import EventKind, Outcome
from governance.database import transaction
from governance.trust.bundle import CountryDocuments

LONGEST_SILENCE = timedelta(days=7)
"""A run without a message for longer is void; a coordinator that comes back begins a new one."""
LONGEST_OPEN = timedelta(days=1)
"""A round that was not answered for longer is void. Documents that could allow it have expired by
then where a coordinator was away: it signs that they are fresh once a day."""


class Lapsing:
    """What a node gives up by itself."""

    def __init__(
        self, engine: Engine, *, runs: RunBook, journal: Journal, decisions: Decisions
    ) -> None:
        self._engine, self._runs = engine, runs
        self._journal, self._decisions = journal, decisions

    def end_silent(self, now: datetime) -> None:
        """End the runs in which nobody spoke for a week, and give up rounds open for a day."""
        self._journal.forget_ended(now - LONGEST_SILENCE)
        for run in self._runs.summaries(live=True):
            quiet = now - (self._journal.latest(run.run) or run.created)
            if quiet > LONGEST_SILENCE:
                self._end(run, now)
            elif quiet > LONGEST_OPEN:
                self._runs.give_up_round(run.run)

    def end_forbidden(self, own: CountryDocuments, now: datetime) -> None:
        """End the runs whose study the own country does not permit any more."""
        for run in self._runs.summaries(live=True):
            permit = own.permit(run.study)
            permitted = permit is not None and now < permit.conditions.expires
            if own.withdrawal(run.study) is not None or not permitted:
                self._end(run, now)

    def _end(self, run: RunSummary, now: datetime) -> None:
        subject = Subject(study=run.study, run=run.run)
        with transaction(self._engine) as connection:
            self._runs.end(run.run, now, connection)
            self._journal.forget(run.run, connection)
            self._decisions.event(
                EventKind.RUN_ENDED, subject, outcome=Outcome.DONE, connection=connection
            )
