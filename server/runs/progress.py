"""Stores a run's progress, so that another attempt can resume the run.

The current attempt writes it. Each step is stored completely or not at all. Every write checks the
attempt: once the daemon has created another one, or the run is over, the old one cannot write.
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
from server.errors import CoordinatorFault
from server.runs.rounds import (
    RoundRecord,
    RoundReport,
    SetUpReplies,
    recorded,
)
from server.runs.run_documents import RunDocuments
from server.runs.store import RunRow, RunState, RunStore
from server.state.tables import rounds, runs, set_up_replies


class Superseded(CoordinatorFault):
    """An attempt that may not execute its run: the run is over, or the attempt is not current."""


@dataclass(frozen=True)
class StoredRun:
    """The progress of a run as the last attempt stored it.

    `documents` is the value given to `keep_documents`; `replies` is empty before the set-up is
    complete; `model` is the state after the last round, or the model to release if there is an
    `outcome`; `closed` gives, by round, the countries on which a round in progress was closed.
    """

    study: str
    documents: Mapping[str, Any] | None
    replies: SetUpReplies
    rounds: tuple[RoundRecord, ...]
    model: bytes
    outcome: Mapping[str, Any] | None
    closed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class RunProgress:
    """The stored progress of one run, as one attempt reads and writes it."""

    def __init__(self, engine: Engine, run_id: str, attempt: int, log: LogWriter) -> None:
        self._engine, self._run, self._attempt = engine, run_id, attempt
        self._log = log

    def begin(self, now: datetime) -> None:
        """Mark this attempt as begun. Raises Superseded unless it is current and has not begun.

        Anyone who can reach the SuperLink can submit the same bundle again, and no attempt may be
        executed twice.
        """
        with transaction(self._engine) as connection:
            run = RunStore(self._engine).get(self._run, connection)
            if run.attempt != self._attempt or run.begun >= run.attempt or run.over:
                raise _superseded(run, self._attempt)
            launched = run.state == RunState.LAUNCHED
            state = RunState.SETTING_UP if launched else run.state
            values = {"begun": self._attempt, "state": state, "updated": now}
            connection.execute(update(runs).where(runs.c.run_id == self._run).values(**values))

    def load(self) -> StoredRun:
        """Return the progress that earlier attempts stored."""
        with transaction(self._engine) as connection:
            run = RunStore(self._engine).get(self._run, connection)
            return StoredRun(
                study=run.study,
                documents=None if run.documents is None else json.loads(run.documents),
                replies=_replies(connection, self._run),
                rounds=_rounds(connection, self._run),
                model=_model(connection, self._run),
                outcome=None if run.outcome is None else json.loads(run.outcome),
                closed=_closed(run.closed),
            )

    def keep_documents(self, documents: Mapping[str, Any]) -> None:
        """Store the documents of the run, before the first message that claims them."""
        with self._current() as connection:
            self._set(connection, ground=json.dumps(documents, sort_keys=True))

    def keep_set_up(self, replies: SetUpReplies, now: datetime) -> None:
        """Store the countries' replies in set-up; the rounds begin after it."""
        rows = [
            {"run_id": self._run, "step": step, "country": country, "reply": reply}
            for step, by_country in replies.items()
            for country, reply in by_country.items()
        ]
        with self._current() as connection:
            connection.execute(insert(set_up_replies).values(rows))
            self._set_step(connection, now, state=RunState.RUNNING)

    def keep_closed(self, number: int, countries: tuple[str, ...], now: datetime) -> None:
        """Store the countries on which a round was closed, before they are asked to agree.

        They are fewer than the roster. A later attempt opens the round over them, or not at all.
        """
        closed = json.dumps({"round": number, "countries": countries})
        with self._current() as connection:
            self._set(connection, closed=closed, updated=now)

    def keep_round(
        self,
        report: RoundReport,
        model: bytes,
        now: datetime,
        outcome: Mapping[str, Any] | None = None,
    ) -> None:
        """Store and log a round's result, the state after it, and the outcome if there is one."""
        with self._current() as connection:
            connection.execute(insert(rounds).values(_row(self._run, report)))
            self._log.append(self._event(connection, recorded(report), now), connection)
            text = None if outcome is None else json.dumps(outcome)
            values = {"round": report.number, "model": model, "outcome": text}
            self._set_step(connection, now, closed=None, **values)

    def end(self, state: RunState, now: datetime, reason: str) -> None:
        """End the run; delete what only another attempt would have needed."""
        with self._current() as connection:
            RunStore(self._engine).move(self._run, state, now, reason, connection)

    def note_end_of_attempt(self, reason: str, now: datetime) -> None:
        """Store why this attempt ends although the run does not."""
        with self._current() as connection:
            self._set(connection, reason=reason, updated=now)

    def _event(self, connection: Connection, record: RoundRecord, now: datetime) -> Event:
        """Return the log entry of a round; it never contains the opened sum."""
        run = RunStore(self._engine).get(self._run, connection)
        return Event(
            kind=EventKind.ROUND_OPENED if record.opened else EventKind.ROUND_VOID,
            at=now,
            actor=COORDINATOR,
            study=run.study,
            run=run.run_id,
            round=record.number,
            reason=record.reason or None,
            documents=_claimed(run.documents),
        )

    @contextmanager
    def _current(self) -> Iterator[Connection]:
        """Yield a transaction in which this is the current attempt. Raises Superseded."""
        with transaction(self._engine) as connection:
            run = RunStore(self._engine).get(self._run, connection)
            if (run.attempt, run.begun) != (self._attempt, self._attempt) or run.over:
                raise _superseded(run, self._attempt)
            yield connection

    def _set_step(self, connection: Connection, now: datetime, **values: Any) -> None:
        """Store a step of the run; earlier attempts without a step no longer count."""
        self._set(connection, fruitless=0, reason="", updated=now, **values)

    def _set(self, connection: Connection, **values: Any) -> None:
        connection.execute(update(runs).where(runs.c.run_id == self._run).values(**values))


def _claimed(documents: str | None) -> DocumentVersions | None:
    """Return the document versions that the run's requests claim, once they are fixed."""
    if documents is None:
        return None
    return RunDocuments.model_validate_json(documents).document_versions


def _superseded(run: RunRow, attempt: int) -> Superseded:
    if run.over:
        why, fix = f"it is already {run.state}", "launch the study again for a new run"
    else:
        why = f"attempt {run.attempt} is its current one"
        fix = "nothing to do: the current attempt executes it"
    return Superseded(f"Attempt {attempt} may not execute the run {run.run_id}", why=why, fix=fix)


def _model(connection: Connection, run_id: str) -> bytes:
    query = select(runs.c.model).where(runs.c.run_id == run_id)
    return bytes(connection.execute(query).scalar_one() or b"")


def _closed(text: str | None) -> dict[int, tuple[str, ...]]:
    closed = None if text is None else json.loads(text)
    return {} if closed is None else {closed["round"]: tuple(closed["countries"])}


def _replies(connection: Connection, run_id: str) -> SetUpReplies:
    replies: SetUpReplies = {}
    query = select(set_up_replies).where(set_up_replies.c.run_id == run_id)
    for row in connection.execute(query):
        replies.setdefault(row.step, {})[row.country] = bytes(row.reply)
    return replies


def _rounds(connection: Connection, run_id: str) -> tuple[RoundRecord, ...]:
    query = select(rounds).where(rounds.c.run_id == run_id).order_by(rounds.c.round)
    return tuple(_record(row) for row in connection.execute(query))


def _record(row: Any) -> RoundRecord:
    stored = json.loads(row.countries)
    return RoundRecord(
        number=row.round,
        phase=row.phase,
        countries=tuple(stored["opened"]),
        reason=stored.get("reason", ""),
        causes=stored["causes"],
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
