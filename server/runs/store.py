"""What is known of each run, kept in the coordinator's database: its state and its attempts.

A run of ours outlives the Flower runs that carry it. The daemon numbers them, its *attempts*; what
an attempt keeps of the run's progress is in `server.runs.progress`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from governance.runtime.database import transaction
from server.errors import OperationFault
from server.state.tables import rounds, runs, set_up_replies


class RunState(StrEnum):
    """Where a run stands."""

    LAUNCHED = "launched"
    SETTING_UP = "setting-up"
    RUNNING = "running"
    FINISHED = "finished"
    VOID = "void"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (RunState.LAUNCHED, RunState.SETTING_UP, RunState.RUNNING)


UNDER_WAY = tuple(state for state in RunState if not state.over)
_SHOWN = select(*(column for column in runs.c if column.name != "model"))
"""Rows without their model, which may be large and is read by whoever carries the run."""


Noted = Callable[[int, Connection], None]
"""What else lasts in the transaction that makes an attempt; told its number."""

_NUMBER: ColumnElement[int] = literal_column("rowid")
"""SQLite's own number of a row, in the order in which rows were kept."""


@dataclass(frozen=True)
class KeptRound:
    """A round of any run; `place` rises with each kept, `causes` say why a country failed it."""

    place: int
    run: str
    round: int
    outcome: str
    seconds: float
    causes: Mapping[str, str]


class RunStore:
    """Runs and their rounds. Used by the daemon and by the server app, each in its own process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, run_id: str, study: str, now: datetime, noted: Noted = lambda *_: None) -> int:
        """Note a new run of the study with this digest; returns the number of its first attempt."""
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
            noted(1, connection)
        return 1

    def next_attempt(self, run_id: str, now: datetime, noted: Noted = lambda *_: None) -> int:
        """Let another attempt carry the run and return its number; none before it may any more.

        Raises OperationFault where the run is over.
        """
        with transaction(self._engine) as connection:
            row = self.get(run_id, connection)
            if RunState(row.state).over:
                raise OperationFault(f"The run {run_id} is over", why=f"it is {row.state}")
            values = {"attempt": row.attempt + 1, "fruitless": row.fruitless + 1}
            values |= {"resumed": now, "updated": now}
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
            noted(row.attempt + 1, connection)
        return int(row.attempt) + 1

    def carried_by(self, run_id: str, flower_run: int) -> None:
        """Note which Flower run carries it."""
        chosen = update(runs).where(runs.c.run_id == run_id)
        with transaction(self._engine) as connection:
            connection.execute(chosen.values(flower_run=str(flower_run)))

    def move(
        self,
        run_id: str,
        state: RunState,
        now: datetime,
        reason: str = "",
        connection: Connection | None = None,
    ) -> bool:
        """Note the run's new state, with the reason where it ends without a result.

        A run that is over stays as it ended; returns whether it moved. Once it is over, what the
        countries said in its set-up is let go.
        """
        chosen = (runs.c.run_id == run_id) & runs.c.state.in_(UNDER_WAY)
        values = {"state": state, "updated": now, "reason": reason}
        with transaction(self._engine, connection) as within:
            moved = within.execute(update(runs).where(chosen).values(**values)).rowcount
            if moved and state.over:
                within.execute(delete(set_up_replies).where(set_up_replies.c.run_id == run_id))
        return bool(moved)

    def finish(self, run_id: str, now: datetime, noted: Callable[[Connection], None]) -> None:
        """Note that a run's result is out, once, with what `noted` adds to the transaction."""
        with transaction(self._engine) as connection:
            if self.move(run_id, RunState.FINISHED, now, connection=connection):
                noted(connection)

    def get(self, run_id: str, connection: Connection | None = None) -> Any:
        """Return the run's row. Raises OperationFault where there is none."""
        with transaction(self._engine, connection) as within:
            row = within.execute(_SHOWN.where(runs.c.run_id == run_id)).one_or_none()
        if row is None:
            raise OperationFault(f"There is no run {run_id}")
        return row

    def by_state(self) -> dict[str, int]:
        """Return how many runs are in each state, for every state there is."""
        counted = select(runs.c.state, func.count()).group_by(runs.c.state)
        with transaction(self._engine) as connection:
            found = {str(state): int(count) for state, count in connection.execute(counted)}
        return {state.value: found.get(state.value, 0) for state in RunState}

    def last_round(self) -> int:
        """Return the number under which the newest round of any run was kept; 0 for none."""
        newest = select(func.max(_NUMBER)).select_from(rounds)
        with transaction(self._engine) as connection:
            return int(connection.execute(newest).scalar() or 0)

    def rounds_after(self, number: int) -> list[KeptRound]:
        """Return the rounds that were kept after that number, oldest first."""
        newer = select(_NUMBER.label("place"), rounds).where(number < _NUMBER)
        with transaction(self._engine) as connection:
            rows = connection.execute(newer.order_by(_NUMBER)).all()
        return [
            KeptRound(
                place=row.place,
                run=row.run_id,
                round=row.round,
                outcome=row.outcome,
                seconds=row.seconds,
                causes=json.loads(row.countries)["causes"],
            )
            for row in rows
        ]

    def latest_of(self, study: str) -> Any | None:
        """Return the newest run of a study, if it was ever launched."""
        chosen = _SHOWN.where(runs.c.study == study).order_by(runs.c.created.desc())
        with transaction(self._engine) as connection:
            return connection.execute(chosen.limit(1)).one_or_none()

    def of(self, study: str) -> list[Any]:
        """Return every run of a study."""
        return [row for row in self.all() if row.study == study]

    def all(self) -> list[Any]:
        """Return every run."""
        with transaction(self._engine) as connection:
            return list(connection.execute(_SHOWN).all())

    def unfinished(self) -> list[Any]:
        """Return the runs that are not over."""
        return [row for row in self.all() if not RunState(row.state).over]

    def rounds_of(self, run_id: str) -> list[Mapping[str, Any]]:
        """Return every round so far, in order."""
        chosen = select(rounds).where(rounds.c.run_id == run_id).order_by(rounds.c.round)
        with transaction(self._engine) as connection:
            rows = connection.execute(chosen).all()
        return [
            {
                "round": row.round,
                "phase": row.phase,
                "outcome": row.outcome,
                "seconds": row.seconds,
                **json.loads(row.countries),
            }
            for row in rows
        ]


def resumed(row: Any, now: datetime) -> dict[str, Any]:
    """Return how many times a run was carried on by another attempt, and last how long ago."""
    seconds = None if row.resumed is None else (now - row.resumed).total_seconds()
    return {"times": max(0, row.attempt - 1), "seconds_ago": seconds}
