"""Checks that nobody has changed the state database while the node did not run.

The log's head is signed in each transaction. It covers the log and all settings. Entries of the log
name each charge, each place of the reply journal and each decision about a cohort. So these cannot
be changed, removed or added by somebody who has no key (docs/adr/0025).
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import ColumnElement, Connection, Engine, Table

from client.state.key_value import settings_digest
from client.state.tables import MIGRATIONS, cohort_counts, journal
from governance.audit.events import MOST_ROWS, Event, EventKind
from governance.audit.integrity import not_as_signed
from governance.audit.log import AuditLog
from governance.audit.signed_head import Unsigned
from governance.budget.ledger import Ledger, ledger_entries
from governance.records.binding import require_bound, require_prices, stated_rows
from governance.runtime.database import reading, transaction
from governance.runtime.row_digest import row_digests
from governance.runtime.schema_check import require_own_schema, require_whole_tables
from keys.clock import utc_now
from keys.identity import SigningKey

ERASED = ("reply",)
"""Columns of guarded rows that are erased later, and so are not part of a row's digest."""
SAID = (
    "The state is signed from now on, as the version before left it: "
    "{number} rows of ledger, journal and counts"
)


def open_log(engine: Engine, origin: str, key: SigningKey, *, former: bool) -> AuditLog:
    """Return the log of a node, whose head covers the settings.

    `former`: this node's state was never signed, because an earlier version made it.
    """
    return AuditLog(engine, origin, key, covered=settings_digest, unsigned=Unsigned(former=former))


def row_names(
    connection: Connection, table: Table, *wanted: ColumnElement[bool]
) -> tuple[str, ...]:
    """Return the digests by which a log entry names the wanted rows of a guarded table."""
    return tuple(row_digests(connection, table, *wanted, without=ERASED))


class StateCheck:
    """The check of one node's state database."""

    def __init__(self, engine: Engine, log: AuditLog, country: str) -> None:
        self._engine, self._log, self._country = engine, log, country

    def require_intact(self) -> None:
        """Raise LogFault or StorageFault if the database is not as this node signed it.

        It changes nothing, blocks no writer and may run beside the daemon.
        """
        with reading(self._engine) as connection:
            require_own_schema(connection, MIGRATIONS)
            require_whole_tables(connection, _TABLES)
            if self._log.signed_head(connection) is None:
                _exhaust(self._log.verified_entries(connection))
            else:
                require_bound(
                    lambda: stated_rows(self._log.verified_entries(connection)),
                    lambda: _guarded_rows(connection),
                )
            self._require_prices(connection)

    def take_over(self) -> None:
        """Check the database, and sign that of a version that signed none; before any writing."""
        self.require_intact()
        self.sign_former()

    def sign_former(self) -> None:
        """Sign the state of a version that signed none, as it is, and log that."""
        with transaction(self._engine) as connection:
            if self._log.signed_head(connection) is not None or not self._log.size(connection):
                return
            named = set(stated_rows(self._log.verified_entries(connection)))
            names = [name for name in _guarded_rows(connection) if name not in named]
            for first in range(0, max(1, len(names)), MOST_ROWS):
                self._log.append(self._signed(names, first), connection)

    def _signed(self, names: list[str], first: int) -> Event:
        return Event(
            kind=EventKind.STATE_SIGNED,
            at=utc_now(),
            actor=self._country,
            reason=SAID.format(number=len(names)),
            rows=tuple(names[first : first + MOST_ROWS]),
        )

    def _require_prices(self, connection: Connection) -> None:
        try:
            require_prices(Ledger(self._engine).entries(connection=connection))
        except ValueError:
            raise not_as_signed("a row of its ledger cannot be read") from None


_GUARDED = (ledger_entries, journal, cohort_counts)
_TABLES = ("ledger_entries", "journal", "cohort_counts", "settings")


def _guarded_rows(connection: Connection) -> Iterator[str]:
    for table in _GUARDED:
        yield from row_digests(connection, table, without=ERASED)


def _exhaust(entries: Iterable[bytes]) -> None:
    for _ in entries:
        pass
