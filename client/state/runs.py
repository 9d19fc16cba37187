"""Runs that this node has taken part in: no run id is entered twice, and secrets are sealed.

A run's state is sealed under a key of its own and bound to its id, replaced at every step, and
erased when the run ends; the id stays, so that nobody can begin it again.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Update, insert, select, update

from client.state.tables import runs
from governance.runtime.database import transaction
from keys.derive import derive_key, frame
from keys.errors import KeyFault
from keys.sealing import open_sealed, seal
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.country_state import read_state, without_open_round
from protocols.wire.encoding import canonical_json

STATE_LABEL = "pratique/run-state/v1"
LEFT = (
    "this country has left the run, and its secrets are gone: the officer withdrew or the permit "
    "ended, or the run ended here or was silent for a week"
)
UNREADABLE = (KeyFault, ProtocolFault, ValueError, TypeError, LookupError)
"""What is raised where a state was written by another version, under another key, or damaged."""


@dataclass(frozen=True)
class RunRecord:
    """A live run, opened: `state` is what `CountryRun.to_bytes` gave, and secret.

    `data_version` is of the records whose cohort was found large enough; `peers` are the identity
    keys by country that the run began with, none in a run that an earlier release entered.
    """

    run: str
    study: str
    roster: tuple[str, ...]
    data_version: str
    state: bytes
    peers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSummary:
    """A run as `status` shows it."""

    run: str
    study: str
    created: datetime
    ended: datetime | None


class RunStore:
    """The runs in one state database. Safe among threads and processes."""

    def __init__(self, engine: Engine, key: bytes) -> None:
        self._engine, self._key = engine, key

    def require_unused(self, run: str) -> None:
        """Raise Refusal STALE where this run id was ever used."""
        with transaction(self._engine) as connection:
            if _row(connection, run) is not None:
                raise _stale("the run id was used before, and is not entered twice")

    def live(self, run: str) -> RunRecord:
        """Return a live run.

        Raises Refusal: STALE where it was never entered, or has ended; DECLINED where it cannot
        be read.
        """
        with transaction(self._engine) as connection:
            row = _row(connection, run)
        if row is None:
            raise _stale("this country has not entered the run")
        if row.state is None:
            raise _stale(LEFT)
        return self._opened(run, row.study, bytes(row.state))

    def enter(self, record: RunRecord, now: datetime, connection: Connection) -> None:
        """Use up a run id, in the caller's transaction."""
        row = {"run_id": record.run, "study": record.study, "created": now}
        connection.execute(insert(runs).values(state=self._sealed(record), **row))

    def replace(self, record: RunRecord, connection: Connection) -> None:
        """Put the next state in place of the last one, in the caller's transaction.

        Raises Refusal STALE where the run has ended: what was erased does not come back.
        """
        changed = connection.execute(_live(record.run).values(state=self._sealed(record)))
        if changed.rowcount != 1:
            raise _stale("the run ended here while the request was worked on; nothing was sent")

    def readable(self, run: str, connection: Connection) -> bool:
        """Whether a run has no state, or one that a message could be answered from."""
        row = _row(connection, run)
        if row is None or row.state is None:
            return True
        try:
            read_state(self._opened(run, row.study, bytes(row.state)).state)
        except UNREADABLE:
            return False
        return True

    def give_up_round(self, run: str, connection: Connection) -> None:
        """Erase what a live run keeps for a round that is open, if one is.

        In the caller's transaction; the run has to be readable.
        """
        row = _row(connection, run)
        if row is None or row.state is None:
            return
        record = self._opened(run, row.study, bytes(row.state))
        if read_state(record.state).open_round is not None:
            self.replace(replace(record, state=without_open_round(record.state)), connection)

    def end(self, run: str, now: datetime, connection: Connection) -> bool:
        """Erase a run's secrets, in the caller's transaction; return whether it was live."""
        return connection.execute(_live(run).values(state=None, ended=now)).rowcount == 1

    def summaries(self, *, live: bool, connection: Connection | None = None) -> list[RunSummary]:
        """Return the runs, newest first; the live ones only if asked."""
        query = select(runs).order_by(runs.c.created.desc())
        with transaction(self._engine, connection) as opened:
            rows = opened.execute(query.where(runs.c.state.is_not(None)) if live else query)
            return [RunSummary(r.run_id, r.study, r.created, r.ended) for r in rows]

    def _sealed(self, record: RunRecord) -> bytes:
        value = {
            "roster": list(record.roster),
            "data_version": record.data_version,
            "state": base64.b64encode(record.state).decode(),
            "peers": dict(record.peers),
        }
        associated = _associated(record.run, record.study)
        return seal(self._key_of(record.run), canonical_json(value), associated)

    def _opened(self, run: str, study: str, sealed: bytes) -> RunRecord:
        try:
            value = json.loads(open_sealed(self._key_of(run), sealed, _associated(run, study)))
            return RunRecord(
                run=run,
                study=study,
                roster=tuple(value["roster"]),
                data_version=value["data_version"],
                state=base64.b64decode(value["state"]),
                peers=value.get("peers", {}),
            )
        except UNREADABLE:
            raise _unreadable() from None

    def _key_of(self, run: str) -> bytes:
        return derive_key(self._key, STATE_LABEL, run.encode())


def _associated(run: str, study: str) -> bytes:
    return frame(run.encode(), study.encode())


def _row(connection: Connection, run: str) -> Row[Any] | None:
    return connection.execute(select(runs).where(runs.c.run_id == run)).one_or_none()


def _live(run: str) -> Update:
    return update(runs).where(runs.c.run_id == run, runs.c.state.is_not(None))


def _stale(why: str) -> Refusal:
    return Refusal(
        ReasonCode.STALE,
        "The request is not for a run that this country takes part in",
        why=why[:1].upper() + why[1:],
        fix="nothing to do here; a new launch needs a permit",
    )


def _unreadable() -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "What this node keeps of the run cannot be read",
        why="another version of the program wrote it, or other keys sealed it, or it was damaged",
        fix="start the node as it was before: without a message for a day, the run ends",
    )
