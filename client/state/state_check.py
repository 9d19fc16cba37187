"""Checks that nobody has changed the state database while the node did not run.

The log's head is signed in each transaction. It covers the log and all settings, and among these a
digest of the rows that change: live runs, documents, confirmed opt-outs. Entries of the log name
each charge, each place of the reply journal, each decision about a cohort and each ended run. So
none of these can be changed, removed or added by somebody who has no key (docs/adr/0025).
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import ColumnElement, Connection, Engine, Table

from client.state.covered_rows import COVERED
from client.state.key_value import settings_digest
from client.state.tables import MIGRATIONS, cohort_counts, journal, runs
from governance.audit.events import MOST_ROWS, Event, EventKind
from governance.audit.integrity import not_as_signed
from governance.audit.log import AuditLog
from governance.audit.signed_head import SignedHead, Unsigned
from governance.budget.ledger import Ledger, ledger_entries
from governance.records.binding import require_bound, require_prices, stated_rows
from governance.runtime.database import reading, transaction
from governance.runtime.row_digest import row_digests, rows_with_digests
from governance.runtime.schema_check import require_own_schema, require_whole
from keys.clock import utc_now
from keys.identity import SigningKey
from protocols.wire.encoding import digest

ERASED = ("reply",)
"""Columns of guarded rows that are erased later, and so are not part of a row's digest."""
SAID = (
    "The state is signed from now on, as the version before left it: "
    "{number} rows of ledger, journal, counts and ended runs"
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
            require_whole(connection)
            head = self._log.signed_head(connection)
            if head is None:
                _exhaust(self._log.verified_entries(connection))
            else:
                self._require_bound(connection, former=_is_former(head))
            self._require_prices(connection)

    def _require_bound(self, connection: Connection, *, former: bool) -> None:
        """Raise LogFault unless rows are as the log and the settings state; as far as `former`."""
        bodies = _stored_replies(connection)
        require_bound(
            lambda: stated_rows(self._log.verified_entries(connection), bodies),
            lambda: _guarded_rows(connection, former=former),
        )
        for rows in () if former else COVERED:
            rows.require_as_covered(connection)

    def take_over(self) -> None:
        """Check the database, and sign that of a version that signed none; before any writing."""
        self.require_intact()
        self.sign_former()

    def sign_former(self) -> None:
        """Sign the state of a version that signed none, or less of it, as it is, and log that."""
        with transaction(self._engine) as connection:
            if not _is_former(self._log.signed_head(connection)) or not self._log.size(connection):
                return
            named = set(stated_rows(self._log.verified_entries(connection)))
            names = [name for name in _guarded_rows(connection) if name not in named]
            for rows in COVERED:
                rows.cover(connection)
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


_GUARDED_BEFORE = (ledger_entries, journal, cohort_counts)
"""Tables whose rows the entries of an earlier version name, too."""


def _guarded_rows(connection: Connection, *, former: bool = False) -> Iterator[str]:
    """Yield the digests of the rows that the log names; `former`: that an earlier version names."""
    for table in _GUARDED_BEFORE:
        yield from row_digests(connection, table, without=ERASED)
    if not former:
        yield from row_digests(connection, runs, runs.c.state.is_(None))


def _stored_replies(connection: Connection) -> dict[str, str]:
    """Return the digests of the replies that are not erased yet, by the digests of their rows."""
    stored = journal.c.reply.is_not(None)
    rows = rows_with_digests(connection, journal, stored, without=ERASED)
    return {name: _digest_of(values["reply"]) for name, values in rows}


def _digest_of(reply: object) -> str:
    """Return the digest of a reply; SQLite keeps values of any type in any column."""
    return digest(reply) if isinstance(reply, bytes) else ""


def _is_former(head: SignedHead | None) -> bool:
    """Whether an earlier version signed the head, or none was signed."""
    return head is None or not head.counter


def _exhaust(entries: Iterable[bytes]) -> None:
    for _ in entries:
        pass
