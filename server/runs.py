"""What is known of each run, kept in the coordinator's database: state, rounds, model so far."""

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, insert, select, update

from governance.database import transaction
from protocols.private_sum.opening import OpenedSum
from server.errors import OperationFault
from server.rounds import RoundReport
from server.state import rounds, runs


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


_UNDER_WAY = tuple(state for state in RunState if not state.over)


class RunStore:
    """Runs and their rounds. Used by the daemon and by the server app, each in its own process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, run_id: str, study: str, now: datetime) -> None:
        """Note a new run of the study with this digest."""
        row = {
            "run_id": run_id,
            "study": study,
            "state": RunState.LAUNCHED,
            "round": 0,
            "reason": "",
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(runs).values(**row, created=now, updated=now))

    def carried_by(self, run_id: str, flower_run: int) -> None:
        """Note which Flower run carries it."""
        self._set(run_id, flower_run=str(flower_run))

    def begin(self, run_id: str, now: datetime) -> str:
        """Move a run that was launched to its set-up; returns its study's digest.

        Raises OperationFault where it has begun already: whoever can reach the SuperLink can
        submit the same bundle again, and nobody may carry one run twice.
        """
        chosen = (runs.c.run_id == run_id) & (runs.c.state == RunState.LAUNCHED)
        values = {"state": RunState.SETTING_UP, "updated": now}
        with transaction(self._engine) as connection:
            begun = connection.execute(update(runs).where(chosen).values(**values)).rowcount
        row = self.get(run_id)
        if not begun:
            raise OperationFault(
                f"The run {run_id} was not begun again",
                why=f"it is {row.state} already",
                fix="launch the study again for a new run",
            )
        return str(row.study)

    def move(self, run_id: str, state: RunState, now: datetime, reason: str = "") -> None:
        """Note the run's new state, with the reason where it ends without a result.

        A run that is over stays as it ended.
        """
        chosen = (runs.c.run_id == run_id) & runs.c.state.in_(_UNDER_WAY)
        values = {"state": state, "updated": now, "reason": reason}
        with transaction(self._engine) as connection:
            connection.execute(update(runs).where(chosen).values(**values))

    def keep_model(self, run_id: str, model: bytes) -> None:
        """Keep what the rounds so far have made."""
        self._set(run_id, model=model)

    def note_round(self, run_id: str, report: RoundReport, now: datetime) -> None:
        """Note what came of a round."""
        opened = isinstance(report.outcome, OpenedSum)
        countries = report.outcome.countries if isinstance(report.outcome, OpenedSum) else ()
        row = {
            "run_id": run_id,
            "round": report.number,
            "phase": report.phase,
            "outcome": "opened" if opened else "void",
            "countries": json.dumps({"opened": countries, "causes": dict(report.causes)}),
            "seconds": report.seconds,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(rounds).values(row))
        self._set(run_id, round=report.number, updated=now)

    def get(self, run_id: str) -> Any:
        """Return the run's row. Raises OperationFault where there is none."""
        with transaction(self._engine) as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
        if row is None:
            raise OperationFault(f"There is no run {run_id}")
        return row

    def latest_of(self, study: str) -> Any | None:
        """Return the newest run of a study, if it was ever launched."""
        chosen = select(runs).where(runs.c.study == study).order_by(runs.c.created.desc())
        with transaction(self._engine) as connection:
            return connection.execute(chosen.limit(1)).one_or_none()

    def all(self) -> list[Any]:
        """Return every run."""
        with transaction(self._engine) as connection:
            return list(connection.execute(select(runs)).all())

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

    def _set(self, run_id: str, **values: Any) -> None:
        with transaction(self._engine) as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
