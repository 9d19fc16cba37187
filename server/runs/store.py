"""Stores each run in the coordinator's database: its state and its attempts.

A run of ours outlives the Flower runs that execute it. The daemon numbers these as *attempts*.
What an attempt keeps of the run's progress is in `server.runs.progress`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from governance.runtime.database import transaction
from server.answers import Resumptions, RoundSummary
from server.errors import CoordinatorFault
from server.state.tables import rounds, runs, set_up_replies


class RunState(StrEnum):
    """The state of a run."""

    LAUNCHED = "launched"
    SETTING_UP = "setting-up"
    RUNNING = "running"
    FINISHED = "finished"
    VOID = "void"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self not in (RunState.LAUNCHED, RunState.SETTING_UP, RunState.RUNNING)


UNDER_WAY = tuple(state for state in RunState if not state.over)
ENDED_WITHOUT_RESULT = (RunState.VOID, RunState.FAILED)
_RUN_ROWS = select(*(column for column in runs.c if column.name != "model"))
"""Runs without their model, which may be large and which only `server.runs.progress` reads."""


OnAttempt = Callable[[int, Connection], None]
"""Writes more in the transaction that creates an attempt; takes the attempt's number."""

_ROW_NUMBER: ColumnElement[int] = literal_column("rowid")
"""SQLite's own number of a row; it rises with each inserted row."""


@dataclass(frozen=True)
class RunRow:
    """A run without its model; `server.state.tables.runs` explains the columns.

    `documents` is the column `ground`.
    """

    run_id: str
    study: str
    flower_run: str | None
    state: RunState
    round: int
    reason: str
    created: datetime
    updated: datetime
    attempt: int
    begun: int
    fruitless: int
    resumed: datetime | None
    documents: str | None
    outcome: str | None
    closed: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Return the run of a database row."""
        values = dict(row._mapping)  # noqa: SLF001 (SQLAlchemy's public name for it)
        values |= {"state": RunState(row.state), "documents": values.pop("ground")}
        return cls(**values)

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.state.over


@dataclass(frozen=True)
class StoredRound:
    """A round of any run; `row_number` rises with each; `causes` say why a country failed it."""

    row_number: int
    run: str
    round: int
    outcome: str
    seconds: float
    causes: Mapping[str, str]


class RunStore:
    """Runs and their rounds. Used by the daemon and by the server app, each in its own process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, run_id: str, study: str, now: datetime, on_attempt: OnAttempt = lambda *_: None
    ) -> int:
        """Store a new run of the study with this digest; return the number of its first attempt."""
        row = {
            "run_id": run_id,
            "study": study,
            "state": RunState.LAUNCHED,
            "round": 0,
            "reason": "",
            "attempt": 1,
            "begun": 0,
            "fruitless": 1,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(runs).values(**row, created=now, updated=now))
            on_attempt(1, connection)
        return 1

    def next_attempt(
        self, run_id: str, now: datetime, on_attempt: OnAttempt = lambda *_: None
    ) -> int:
        """Create the run's next attempt and return its number; earlier attempts are superseded.

        Raises CoordinatorFault if the run is over.
        """
        with transaction(self._engine) as connection:
            run = self.get(run_id, connection)
            if run.over:
                raise CoordinatorFault(f"The run {run_id} is over", why=f"it is {run.state}")
            number = run.attempt + 1
            counts = {"attempt": number, "fruitless": run.fruitless + 1}
            statement = update(runs).where(runs.c.run_id == run_id)
            connection.execute(statement.values(**counts, resumed=now, updated=now))
            on_attempt(number, connection)
        return number

    def set_flower_run(self, run_id: str, flower_run: int) -> None:
        """Store which Flower run executes the current attempt."""
        statement = update(runs).where(runs.c.run_id == run_id)
        with transaction(self._engine) as connection:
            connection.execute(statement.values(flower_run=str(flower_run)))

    def move(
        self,
        run_id: str,
        state: RunState,
        now: datetime,
        reason: str = "",
        connection: Connection | None = None,
    ) -> bool:
        """Store the run's new state, and the reason if it ends without a result.

        A run that is over keeps its state; returns whether the state changed. When a run ends,
        the countries' replies to its set-up are deleted.
        """
        condition = (runs.c.run_id == run_id) & runs.c.state.in_(UNDER_WAY)
        values = {"state": state, "updated": now, "reason": reason}
        with transaction(self._engine, connection) as within:
            changed_rows = within.execute(update(runs).where(condition).values(**values)).rowcount
            if changed_rows and state.over:
                within.execute(delete(set_up_replies).where(set_up_replies.c.run_id == run_id))
        return bool(changed_rows)

    def finish(self, run_id: str, now: datetime, on_finish: Callable[[Connection], None]) -> None:
        """Store that the run's result is published, once; `on_finish` joins the transaction."""
        with transaction(self._engine) as connection:
            if self.move(run_id, RunState.FINISHED, now, connection=connection):
                on_finish(connection)

    def get(self, run_id: str, connection: Connection | None = None) -> RunRow:
        """Return a run. Raises CoordinatorFault if it does not exist."""
        with transaction(self._engine, connection) as within:
            row = within.execute(_RUN_ROWS.where(runs.c.run_id == run_id)).one_or_none()
        if row is None:
            raise CoordinatorFault(f"There is no run {run_id}")
        return RunRow.of(row)

    def by_state(self) -> dict[str, int]:
        """Return the number of runs in each state, including states without runs."""
        grouped = select(runs.c.state, func.count()).group_by(runs.c.state)
        with transaction(self._engine) as connection:
            counts = {str(state): int(count) for state, count in connection.execute(grouped)}
        return {state.value: counts.get(state.value, 0) for state in RunState}

    def without_result(self) -> dict[str, str]:
        """Return the runs that ended without a result by themselves, each with the reason."""
        ended = select(runs.c.run_id, runs.c.reason).where(runs.c.state.in_(ENDED_WITHOUT_RESULT))
        with transaction(self._engine) as connection:
            return {str(row.run_id): str(row.reason) for row in connection.execute(ended)}

    def last_round(self) -> int:
        """Return the row number of the newest round of any run; 0 if there is none."""
        newest = select(func.max(_ROW_NUMBER)).select_from(rounds)
        with transaction(self._engine) as connection:
            return int(connection.execute(newest).scalar() or 0)

    def rounds_after(self, row_number: int) -> list[StoredRound]:
        """Return the rounds that were stored after this row number, oldest first."""
        newer = select(_ROW_NUMBER.label("row_number"), rounds).where(row_number < _ROW_NUMBER)
        with transaction(self._engine) as connection:
            rows = connection.execute(newer.order_by(_ROW_NUMBER)).all()
        return [
            StoredRound(
                row_number=row.row_number,
                run=row.run_id,
                round=row.round,
                outcome=row.outcome,
                seconds=row.seconds,
                causes=json.loads(row.countries)["causes"],
            )
            for row in rows
        ]

    def latest_of(self, study: str) -> RunRow | None:
        """Return the newest run of a study, or None if it was never launched."""
        query = _RUN_ROWS.where(runs.c.study == study).order_by(runs.c.created.desc())
        with transaction(self._engine) as connection:
            row = connection.execute(query.limit(1)).one_or_none()
        return None if row is None else RunRow.of(row)

    def of(self, study: str) -> list[RunRow]:
        """Return every run of a study."""
        return [run for run in self.all() if run.study == study]

    def all(self) -> list[RunRow]:
        """Return every run."""
        with transaction(self._engine) as connection:
            return [RunRow.of(row) for row in connection.execute(_RUN_ROWS)]

    def unfinished(self) -> list[RunRow]:
        """Return the runs that are not over."""
        return [run for run in self.all() if not run.over]

    def rounds_of(self, run_id: str) -> tuple[RoundSummary, ...]:
        """Return every round of a run so far, in order."""
        query = select(rounds).where(rounds.c.run_id == run_id).order_by(rounds.c.round)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return tuple(
            RoundSummary(
                round=row.round,
                phase=row.phase,
                outcome=row.outcome,
                seconds=row.seconds,
                **json.loads(row.countries),
            )
            for row in rows
        )


def resumed(run: RunRow, now: datetime) -> Resumptions:
    """Return how many times another attempt resumed a run, and how long ago the last one did."""
    seconds = None if run.resumed is None else (now - run.resumed).total_seconds()
    return Resumptions(times=max(0, run.attempt - 1), seconds_ago=seconds)
