"""Check that a state database has the schema of its migrations, and nothing else.

A trigger or a foreign key that somebody has added would run within our own transactions, and a
trigger or a constraint that is gone would no longer keep a table as it must be.
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
    "SELECT name, type, tbl_name, sql FROM sqlite_master "
    "WHERE NOT (type = 'table' AND name IN ('sqlite_sequence', 'sqlite_stat1', 'sqlite_stat4'))"
)
_REVISION = "SELECT version_num FROM alembic_version ORDER BY version_num"


def require_own_schema(connection: Connection, migrations: Path) -> None:
    """Raise StorageFault if a table, index, trigger or view was added, changed or removed.

    `migrations` is the alembic folder of the database. Its revision counts as well.
    """
    present, expected = _objects(connection), _expected(migrations)
    names = sorted(
        name for name in present.keys() | expected if present.get(name) != expected.get(name)
    )
    if names:
        raise _changed(f"its part {names[0]!r} is not as this program made it")


def require_whole(connection: Connection) -> None:
    """Raise StorageFault if a table and its indices do not agree, so that a query could miss rows.

    SQLite's quick answers come from indices; somebody may have changed these alone.
    """
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    if found != ["ok"]:
        raise _changed(f"SQLite finds: {found[0]}")


def _objects(connection: Connection) -> dict[str, str]:
    """Return the definition of each part of the schema by its name, and the revision.

    White space does not count: another version of SQLAlchemy may have written it otherwise.
    """
    rows = connection.exec_driver_sql(_OBJECTS)
    parts = {
        str(name): f"{kind} of {table}: {' '.join(str(sql).split())}"
        for name, kind, table, sql in rows
    }
    if "alembic_version" in parts:
        parts["alembic_version rows"] = str(connection.exec_driver_sql(_REVISION).all())
    return parts


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
