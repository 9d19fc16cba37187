"""The runs that this node has taken part in: each run id is used once, and secrets are sealed.

The state of each run is sealed under a separate key and bound to the run id. It is replaced at
every step and erased when the run ends. The id stays, so that nobody can begin the run again. The
rows of live runs are covered by the signed head, and the log entry of a run's end names its row.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, Engine, Update, func, insert, or_, select, update

from client.state.covered_rows import LIVE_RUNS, changing
from client.state.tables import runs
from governance.budget.ledger import Terms
from governance.runtime.database import transaction
from governance.runtime.row_digest import row_digests
from keys.derive import derive_key, frame
from keys.errors import KeyFault
from keys.sealing import open_sealed, seal
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.country_state import read_state, without_open_round
from protocols.wire.encoding import canonical_json

STATE_LABEL = "pratique/run-state/v1"
LEFT = (
    "this country has left the run, and its secrets are gone: the officer withdrew or the permit "
    "ended, another run of the study was entered, or the run ended here or was silent for a week"
)
UNREADABLE = (KeyFault, ProtocolFault, ValueError, TypeError, LookupError)
"""Raised if a state was written by another version, sealed under another key, or damaged."""


@dataclass(frozen=True)
class RunRecord:
    """A live run, unsealed: `state` is the output of `CountryRun.to_bytes`, and secret.

    `data_version` is the version of the records whose cohort was large enough. `peers` are the
    identity keys by country that the run began with, and `split` is the digest of what decides who
    trains and who is held out (both empty if an earlier release entered the run).
    """

    run: str
    study: str
    roster: tuple[str, ...]
    data_version: str
    state: bytes
    peers: Mapping[str, str] = field(default_factory=dict)
    split: str = ""


@dataclass(frozen=True)
class RunSummary:
    """A run without its secrets, as `status` shows it."""

    run: str
    study: str
    created: datetime
    ended: datetime | None


@dataclass(frozen=True)
class _Row:
    """One row of the table of runs; `state` is sealed, None once erased.

    SQLite keeps values of any type in any column, so a damaged `state` need not be bytes.
    """

    study: str
    state: object


class RunStore:
    """The runs in one state database. Safe for threads and processes."""

    def __init__(self, engine: Engine, key: bytes) -> None:
        self._engine, self._key = engine, key

    def require_unused(self, run: str) -> None:
        """Raise Refusal STALE if this run id was ever used."""
        with transaction(self._engine) as connection:
            if _row(connection, run) is not None:
                raise _stale("the run id was used before, and a run is entered once")

    def live(self, run: str) -> RunRecord:
        """Return a live run.

        Raises Refusal: STALE if it was never entered or has ended, DECLINED if it cannot be read.
        """
        with transaction(self._engine) as connection:
            row = _row(connection, run)
        if row is None:
            raise _stale("this country has not entered the run")
        if row.state is None:
            raise _stale(LEFT)
        return self._unsealed(run, row.study, row.state)

    def enter(self, record: RunRecord, now: datetime, connection: Connection) -> None:
        """Store a new run, and so use up its id, in the caller's transaction."""
        row = {"run_id": record.run, "study": record.study, "created": now}
        with changing(connection, LIVE_RUNS):
            connection.execute(insert(runs).values(state=self._sealed(record), **row))

    def replace(self, record: RunRecord, connection: Connection) -> None:
        """Replace the last state with the next one, in the caller's transaction.

        Raises Refusal STALE if the run has ended: an erased state is never restored.
        """
        with changing(connection, LIVE_RUNS):
            result = connection.execute(_live(record.run).values(state=self._sealed(record)))
        if result.rowcount != 1:
            raise _stale(
                "the run ended on this node while the request was processed; nothing was sent"
            )

    def readable(self, run: str, connection: Connection) -> bool:
        """Return whether a run has no state, or one that a message could be answered from."""
        row = _row(connection, run)
        if row is None or row.state is None:
            return True
        try:
            read_state(self._unsealed(run, row.study, row.state).state)
        except UNREADABLE:
            return False
        return True

    def erase_open_round(self, run: str, connection: Connection) -> None:
        """Erase the secrets that a live run holds for an open round, if there is one.

        Runs in the caller's transaction; the state of the run must be readable.
        """
        row = _row(connection, run)
        if row is None or row.state is None:
            return
        record = self._unsealed(run, row.study, row.state)
        if read_state(record.state).open_round is not None:
            self.replace(replace(record, state=without_open_round(record.state)), connection)

    def end(self, run: str, now: datetime, connection: Connection) -> tuple[str, ...]:
        """Erase the secrets of a run, in the caller's transaction.

        Returns the digest by which the log entry must name its row, or nothing if it was not live.
        """
        with changing(connection, LIVE_RUNS):
            ended = connection.execute(_live(run).values(state=None, ended=now)).rowcount == 1
        return tuple(row_digests(connection, runs, runs.c.run_id == run)) if ended else ()

    def entered(self, study: str, since: datetime) -> tuple[int, datetime | None]:
        """Return how many runs of a study were entered from `since` on, and when the last was."""
        query = select(func.count(), func.max(runs.c.created)).where(
            runs.c.study == study, runs.c.created >= since
        )
        with transaction(self._engine) as connection:
            number, last = connection.execute(query).one()
        return int(number), last

    def summaries(self, *, live: bool, connection: Connection | None = None) -> list[RunSummary]:
        """Return the runs, newest first; with `live`, only those that have not ended."""
        query = select(runs).order_by(runs.c.created.desc())
        with transaction(self._engine, connection) as opened:
            rows = opened.execute(query.where(runs.c.state.is_not(None)) if live else query)
            return [RunSummary(row.run_id, row.study, row.created, row.ended) for row in rows]

    def with_carried(self, terms: Terms) -> Terms:
        """Return the ledger's terms with the runs that began before the period and lived on in it.

        A run that has ended counts too: it may have sent sums in this period before.
        """
        since = terms.period.since
        lived_on = or_(runs.c.state.is_not(None), runs.c.ended >= since)
        query = select(runs.c.run_id).where(runs.c.created < since, lived_on)
        with transaction(self._engine) as connection:
            return replace(terms, carried=frozenset(connection.execute(query).scalars()))

    def _sealed(self, record: RunRecord) -> bytes:
        value = {
            "roster": list(record.roster),
            "data_version": record.data_version,
            "state": base64.b64encode(record.state).decode(),
            "peers": dict(record.peers),
            "split": record.split,
        }
        associated = _associated(record.run, record.study)
        return seal(self._sealing_key(record.run), canonical_json(value), associated)

    def _unsealed(self, run: str, study: str, sealed: object) -> RunRecord:
        try:
            if not isinstance(sealed, bytes):
                raise TypeError("not bytes")
            value = json.loads(open_sealed(self._sealing_key(run), sealed, _associated(run, study)))
            return RunRecord(
                run=run,
                study=study,
                roster=tuple(value["roster"]),
                data_version=value["data_version"],
                state=base64.b64decode(value["state"]),
                peers=value.get("peers", {}),
                split=value.get("split", ""),
            )
        except UNREADABLE:
            raise _unreadable() from None

    def _sealing_key(self, run: str) -> bytes:
        return derive_key(self._key, STATE_LABEL, run.encode())


def _associated(run: str, study: str) -> bytes:
    return frame(run.encode(), study.encode())


def _row(connection: Connection, run: str) -> _Row | None:
    query = select(runs.c.study, runs.c.state).where(runs.c.run_id == run)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return _Row(row.study, row.state)


def _live(run: str) -> Update:
    return update(runs).where(runs.c.run_id == run, runs.c.state.is_not(None))


def _stale(why: str) -> Refusal:
    return Refusal(
        ReasonCode.STALE,
        "The request is not for a run that this country takes part in",
        why=why,
        fix="do nothing here; a new launch needs a permit",
    )


def _unreadable() -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "The stored state of the run cannot be read",
        why="other keys sealed it, another version of the program wrote it, or it was damaged",
        fix="open the node's keys with which the run began; otherwise the run ends after a day "
        "without a message, and can be launched again with new permits",
    )
