"""Opens a state database: durable settings checked, schema brought up to date, errors translated.

SQLite for every node, and for the coordinator unless it names a PostgreSQL URL. What the tables
mean is left to their users.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, String
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time, stored as ISO 8601 text of fixed width, so that text order is time order."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        raise NotImplementedError

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        raise NotImplementedError


def open_database(location: Path | str, migrations: Path) -> Engine:
    """Return an engine on the database at `location`, migrated to the newest schema.

    `location` is a file path (SQLite, created 0600) or a SQLAlchemy URL; `migrations` is the
    alembic folder of the room. Every transaction is BEGIN IMMEDIATE: writers queue, none is
    refused half-way. Raises StorageFault where permissions are loose, WAL or full synchronisation
    cannot be had, the schema is newer than this program, or the disk is full or failing; the
    engine raises the same for disk errors later on.
    """
    raise NotImplementedError


@contextmanager
def transaction(engine: Engine, connection: Connection | None = None) -> Iterator[Connection]:
    """Yield the caller's open `connection`, or a new transaction that commits at the end."""
    raise NotImplementedError
    yield


def append_only(table: str, position: str, dialect: str) -> tuple[str, ...]:
    """Return the DDL that aborts UPDATE, DELETE and any INSERT but at the next `position`."""
    raise NotImplementedError
