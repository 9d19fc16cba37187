"""Check that a state database has the triggers and views of its migrations, and no others.

A trigger that somebody has added would run within our own transactions, and a trigger that is gone
would no longer keep a table append-only.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection

from governance.errors import StorageFault
from governance.runtime.database import open_database, reading

RESTORE = (
    "keep the changed database as evidence, notify the privacy officer, and restore a backup from "
    "before the change without `log-head`; on a node, run `pratique-node restored` then"
)
"""The fix of a fault: another program has changed the state database."""

_OBJECTS = (
    "SELECT name, tbl_name || ': ' || sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
)


def require_own_schema(connection: Connection, migrations: Path) -> None:
    """Raise StorageFault if a trigger or a view was added, changed or removed.

    `migrations` is the alembic folder of the database.
    """
    present, expected = _objects(connection), _expected(migrations)
    names = sorted(
        name for name in present.keys() | expected if present.get(name) != expected.get(name)
    )
    if names:
        raise _changed(f"the trigger or view {names[0]!r} is not as this program made it")


def require_whole_tables(connection: Connection, tables: tuple[str, ...]) -> None:
    """Raise StorageFault if a table and its indices do not agree, so that a query could miss rows.

    SQLite's quick answers come from indices; somebody may have changed these alone.
    """
    for table in tables:
        # The names are those of our own tables.
        found = connection.exec_driver_sql(f"PRAGMA integrity_check({table})").scalars().all()
        if found != ["ok"]:
            raise _changed(f"SQLite finds in {table}: {found[0]}")


def _objects(connection: Connection) -> dict[str, str]:
    rows = connection.exec_driver_sql(_OBJECTS)
    return {str(name): str(sql) for name, sql in rows}


@cache
def _expected(migrations: Path) -> Mapping[str, str]:
    with TemporaryDirectory() as folder:
        engine = open_database(Path(folder) / "new.db", migrations)
        try:
            with reading(engine) as connection:
                return _objects(connection)
        finally:
            engine.dispose()


def _changed(why: str) -> StorageFault:
    return StorageFault(
        "The state database was changed by another program",
        why=why,
        fix=RESTORE,
    )
