"""What a run keeps so that another attempt can carry it on: written by the attempt that carries it.

Each step lasts as a whole or not at all. Every write is tied to the attempt: once the daemon has
begun another one, or the run is over, nothing of the old one counts any more.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from governance.audit.events import Event, EventKind
from governance.audit.log import LogWriter
from governance.runtime.database import transaction
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import COORDINATOR
from server.errors import OperationFault
from server.runs.rounds import (
    RoundRecord,
    RoundReport,
    SetUpReplies,
    recorded,
)
from server.runs.run_documents import RunDocuments
from server.runs.store import UNDER_WAY, RunState, RunStore
from server.state.tables import rounds, runs, set_up_replies


class Superseded(OperationFault):
    """An attempt that may not carry its run: it is over, or another attempt carries it."""


@dataclass(frozen=True)
class StoredRun:
    """A run as the last attempt left it.

    `ground` is what `keep_ground` was given; `replies` are empty before the set-up is complete;
    `model` is the state after the last round, or what is to be released where there is an
    `outcome`; `closed` are the countries, by round, that a round under way was closed on.
    """

    study: str
    ground: Mapping[str, Any] | None
    replies: SetUpReplies
    rounds: tuple[RoundRecord, ...]
    model: bytes
    outcome: Mapping[str, Any] | None
    closed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class RunProgress:
    """One attempt's notes on its run."""

    def __init__(self, engine: Engine, run_id: str, attempt: int, log: LogWriter) -> None:
        self._engine, self._run, self._attempt = engine, run_id, attempt
        self._log = log

    def begin(self, now: datetime) -> None:
        """Take the run over. Raises Superseded unless this is its current attempt, and its first.

        Whoever can reach the SuperLink can submit the same bundle again, and nobody may carry one
        attempt twice.
        """
        with transaction(self._engine) as connection:
            row = RunStore(self._engine).get(self._run, connection)
            if row.attempt != self._attempt or row.begun >= row.attempt or _over(row):
                raise _superseded(row, self._attempt)
            launched = row.state == RunState.LAUNCHED
            state = RunState.SETTING_UP if launched else row.state
            values = {"begun": self._attempt, "state": state, "updated": now}
            connection.execute(update(runs).where(runs.c.run_id == self._run).values(**values))

    def kept(self) -> StoredRun:
        """Return what earlier attempts kept."""
        with transaction(self._engine) as connection:
            row = RunStore(self._engine).get(self._run, connection)
            return StoredRun(
                study=row.study,
                ground=None if row.ground is None else json.loads(row.ground),
                replies=_replies(connection, self._run),
                rounds=_rounds(connection, self._run),
                model=_model(connection, self._run),
                outcome=None if row.outcome is None else json.loads(row.outcome),
                closed=_closed(row.closed),
            )

    def keep_ground(self, ground: Mapping[str, Any]) -> None:
        """Keep what the run stands on, before the first message that says it."""
        with self._own() as connection:
            self._set(connection, ground=json.dumps(ground, sort_keys=True))

    def keep_set_up(self, replies: SetUpReplies, now: datetime) -> None:
        """Keep what the countries said in set-up: rounds begin."""
        rows = [
            {"run_id": self._run, "step": step, "country": country, "reply": reply}
            for step, said in replies.items()
            for country, reply in said.items()
        ]
        with self._own() as connection:
            connection.execute(insert(set_up_replies).values(rows))
            self._step(connection, now, state=RunState.RUNNING)

    def keep_closed(self, number: int, countries: tuple[str, ...], now: datetime) -> None:
        """Keep that a round was closed on fewer countries than the roster, before they are told.

        Whoever carries the run on opens the round over these, or not at all.
        """
        said = json.dumps({"round": number, "countries": countries})
        with self._own() as connection:
            self._set(connection, closed=said, updated=now)

    def keep_round(
        self,
        report: RoundReport,
        model: bytes,
        now: datetime,
        outcome: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep and log what came of a round, the state after it, and what there is to release."""
        with self._own() as connection:
            connection.execute(insert(rounds).values(_row(self._run, report)))
            self._log.append(self._event(connection, recorded(report), now), connection)
            text = None if outcome is None else json.dumps(outcome)
            values = {"round": report.number, "model": model, "outcome": text}
            self._step(connection, now, closed=None, **values)

    def end(self, state: RunState, now: datetime, reason: str) -> None:
        """End the run; what carrying it on would have needed is let go."""
        with self._own() as connection:
            RunStore(self._engine).move(self._run, state, now, reason, connection)

    def lose(self, reason: str, now: datetime) -> None:
        """Note why this attempt ends although the run does not."""
        with self._own() as connection:
            self._set(connection, reason=reason, updated=now)

    def _event(self, connection: Connection, record: RoundRecord, now: datetime) -> Event:
        """Return the log entry of a round: what it was, never what it opened."""
        row = RunStore(self._engine).get(self._run, connection)
        return Event(
            kind=EventKind.ROUND_OPENED if record.opened else EventKind.ROUND_VOID,
            at=now,
            actor=COORDINATOR,
            study=row.study,
            run=row.run_id,
            round=record.number,
            reason=record.reason or None,
            documents=_claimed(row.ground),
        )

    @contextmanager
    def _own(self) -> Iterator[Connection]:
        """Yield a transaction in which this attempt carries the run. Raises Superseded."""
        with transaction(self._engine) as connection:
            row = RunStore(self._engine).get(self._run, connection)
            if (row.attempt, row.begun) != (self._attempt, self._attempt) or _over(row):
                raise _superseded(row, self._attempt)
            yield connection

    def _step(self, connection: Connection, now: datetime, **values: Any) -> None:
        """A step kept: the run gets on, whatever became of earlier attempts."""
        self._set(connection, fruitless=0, reason="", updated=now, **values)

    def _set(self, connection: Connection, **values: Any) -> None:
        connection.execute(update(runs).where(runs.c.run_id == self._run).values(**values))


def _over(row: Any) -> bool:
    return row.state not in UNDER_WAY


def _claimed(ground: str | None) -> DocumentVersions | None:
    """Return the document versions that the run's requests claim, once they are fixed."""
    if ground is None:
        return None
    return RunDocuments.model_validate_json(ground).document_versions


def _superseded(row: Any, attempt: int) -> Superseded:
    if _over(row):
        why, fix = f"it is {row.state} already", "launch the study again for a new run"
    else:
        why = f"attempt {row.attempt} is its current one"
        fix = "nothing to do: that one carries it"
    return Superseded(f"Attempt {attempt} does not carry the run {row.run_id}", why=why, fix=fix)


def _model(connection: Connection, run_id: str) -> bytes:
    query = select(runs.c.model).where(runs.c.run_id == run_id)
    return bytes(connection.execute(query).scalar_one() or b"")


def _closed(text: str | None) -> dict[int, tuple[str, ...]]:
    said = None if text is None else json.loads(text)
    return {} if said is None else {said["round"]: tuple(said["countries"])}


def _replies(connection: Connection, run_id: str) -> SetUpReplies:
    found: SetUpReplies = {}
    query = select(set_up_replies).where(set_up_replies.c.run_id == run_id)
    for row in connection.execute(query):
        found.setdefault(row.step, {})[row.country] = bytes(row.reply)
    return found


def _rounds(connection: Connection, run_id: str) -> tuple[RoundRecord, ...]:
    query = select(rounds).where(rounds.c.run_id == run_id).order_by(rounds.c.round)
    return tuple(_record(row) for row in connection.execute(query))


def _record(row: Any) -> RoundRecord:
    said = json.loads(row.countries)
    return RoundRecord(
        number=row.round,
        phase=row.phase,
        countries=tuple(said["opened"]),
        reason=said.get("reason", ""),
        causes=said["causes"],
    )


def _row(run_id: str, report: RoundReport) -> dict[str, Any]:
    record = recorded(report)
    causes, reason = dict(record.causes), record.reason
    return {
        "run_id": run_id,
        "round": record.number,
        "phase": record.phase,
        "outcome": "opened" if record.opened else "void",
        "countries": json.dumps({"opened": record.countries, "causes": causes, "reason": reason}),
        "seconds": report.seconds,
    }
