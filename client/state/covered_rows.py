"""Covers rows that change or go: a digest of them is a setting, and the signed head covers these.

Each change happens inside `changing`, which first compares the rows with their digest. So rows that
somebody else has changed meanwhile are never taken over (docs/adr/0025).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table

from client.state.key_value import get_value, set_value
from client.state.tables import opt_out_confirmations, runs
from governance.audit.integrity import not_as_signed
from governance.runtime.row_digest import NO_ROWS, rows_digest


@dataclass(frozen=True)
class CoveredRows:
    """The rows of a table that one digest covers; `name` is what a fault calls them."""

    name: str
    table: Table
    wanted: tuple[ColumnElement[bool], ...] = ()

    def require_as_covered(self, connection: Connection) -> None:
        """Raise LogFault unless the rows are those of the digest; without one there are none."""
        stored = get_value(connection, self._setting)
        if (stored or NO_ROWS) != self._digest(connection):
            raise not_as_signed(f"its {self.name} are not those that were signed")

    def cover(self, connection: Connection) -> None:
        """Store the digest of the rows as they are, in the caller's transaction."""
        set_value(connection, self._setting, self._digest(connection))

    @property
    def _setting(self) -> str:
        return f"rows-of-{self.table.name}"

    def _digest(self, connection: Connection) -> str:
        return rows_digest(connection, self.table, *self.wanted)


LIVE_RUNS = CoveredRows("live runs", runs, (runs.c.state.is_not(None),))
OPT_OUTS = CoveredRows("confirmed entries of the opt-out list", opt_out_confirmations)
COVERED = (LIVE_RUNS, OPT_OUTS)


@contextmanager
def changing(connection: Connection, rows: CoveredRows) -> Iterator[None]:
    """Change rows inside the block, and cover them again. Raises LogFault if others changed them.

    Everything happens in the transaction of the caller.
    """
    rows.require_as_covered(connection)
    yield
    rows.cover(connection)
