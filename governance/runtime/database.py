"""Open a state database: check its durable settings, migrate its schema, translate its errors.

SQLite on a local disk, for node and coordinator. Other modules define the tables.
"""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Dialect, Engine, String, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from governance.errors import StorageFault
from keys.errors import PratiqueError, reason_of

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
BUSY_SECONDS = 30
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
LARGEST_IDLE_LOG = 8 * 2**20
"""Bytes that the write-ahead log keeps after a checkpoint; a large transaction makes it longer."""
WANTED_PRAGMAS: dict[str, str | int] = {
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "secure_delete": 1,
    "journal_size_limit": LARGEST_IDLE_LOG,
}
"""Write-ahead log, one fsync per commit; deleted data is overwritten. SQLite reports no error if
it cannot apply a setting, so the value that each PRAGMA returns is compared."""
READ_ONLY = "pratique_read_only"
PRIMARY_CODE = 0xFF
"""The low byte of an extended SQLite result code (sqlite.org/rescode.html)."""
MEANINGS = {
    sqlite3.SQLITE_FULL: ("The disk is full", "free some space on it, then try again"),
    sqlite3.SQLITE_IOERR: ("The disk cannot be read or written", "check the disk's health"),
    sqlite3.SQLITE_READONLY: ("The database is not writable", "check its owner and its disk"),
    sqlite3.SQLITE_CANTOPEN: ("The database cannot be opened", "check its folder and its owner"),
    sqlite3.SQLITE_PERM: ("Opening the database is not permitted", "check its owner"),
    sqlite3.SQLITE_BUSY: ("Another process uses the database", "end it, then try again"),
    sqlite3.SQLITE_CORRUPT: ("The database is damaged", "restore it from a backup"),
    sqlite3.SQLITE_NOTADB: ("This file is not a database", "check the path"),
}
_ONE_MIGRATION = threading.Lock()
"""One migration at a time, because Alembic keeps its environment in module globals."""
_ONE_CREATION = threading.Lock()
"""No thread may use a new file before the one that created it has closed it."""


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time, stored as ISO 8601 text of fixed width: text order is time order."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002  the signature is SQLAlchemy's
        """Return the text to store. Raises StorageFault for a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise StorageFault("A time without a zone cannot be stored", fix="pass it in UTC")
        return value.astimezone(UTC).strftime(TIME_FORMAT)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  the signature is SQLAlchemy's
        """Return the stored time, aware, in UTC."""
        return value and datetime.strptime(value, TIME_FORMAT).replace(tzinfo=UTC)


def open_database(location: Path | str, migrations: Path) -> Engine:
    """Return an engine on the SQLite file at `location`, migrated to the newest schema.

    `migrations` is the alembic folder of the room. Every transaction is BEGIN IMMEDIATE: writers
    queue, and none fails half-way. Raises StorageFault if other users may read the file, SQLite
    cannot apply the durable settings, the schema is newer than this program, or the disk is full
    or failing. The engine also raises StorageFault for later disk errors.
    """
    file = _file(location)
    _require_private(file)
    engine = create_engine(
        URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "handle_error", _translate)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin_immediate)
    _migrate(engine, migrations)
    return engine


@contextmanager
def transaction(engine: Engine, connection: Connection | None = None) -> Iterator[Connection]:
    """Yield the caller's open `connection`, or a new transaction that commits at the end."""
    if connection is not None:
        yield connection
        return
    with engine.begin() as new:
        yield new


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that sees the database as it is now, for as long as it is open.

    It blocks no writer, however long it lasts. Nothing may be written over it.
    """
    with engine.connect().execution_options(**{READ_ONLY: True}) as connection, connection.begin():
        yield connection


def fold_log(engine: Engine) -> None:
    """Write the write-ahead log into the database and empty it, unless the database is busy.

    Until then the log may still contain data that a later transaction deleted. If the database is
    busy, the next call does it.
    """
    with closing(engine.raw_connection()) as raw:
        raw.execute("PRAGMA busy_timeout = 0")
        with suppress(sqlite3.OperationalError):
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        raw.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


def _file(location: Path | str) -> Path:
    if "://" in str(location):
        raise StorageFault(
            f"The location {location} is not a file",
            why="this version keeps its state in SQLite only",
            fix="name a file on a local disk",
        )
    return Path(location)


def _require_private(file: Path) -> None:
    """Create the file with mode 0600, before SQLite does; its side files get the same mode.

    An existing file is not opened: to close it would end every lock that SQLite holds on it in this
    process, and another process could then delete the write-ahead log in use (SQLite, "How To
    Corrupt An SQLite Database File", section 2.2).
    """
    try:
        file.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        with _ONE_CREATION, suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
        status = file.lstat()
    except OSError as error:
        raise StorageFault(
            f"The file {file} cannot be opened",
            why=reason_of(error),
            fix="check that this user may read and write it, and that the disk has free space",
        ) from error
    _require_mode(file, status)


def _require_mode(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StorageFault(f"The path {file} is not a file", fix="name a file")
    if stat.S_IMODE(status.st_mode) & ~PRIVATE_FILE:
        raise StorageFault(
            f"Others may read {file}",
            why=f"its mode is {stat.S_IMODE(status.st_mode):04o}",
            fix=f"chmod 600 {file}",
        )


def _configure(raw: Any, _record: object) -> None:
    """Set up one SQLite connection; this module begins transactions, never the driver."""
    raw.isolation_level = None
    try:
        applied = {name: _set_pragma(raw, name, wanted) for name, wanted in WANTED_PRAGMAS.items()}
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _fault(error) from error
    if applied != WANTED_PRAGMAS:
        raise StorageFault(
            "The database cannot be secured against a crash",
            why=f"SQLite runs with {applied}",
            fix="keep it on a local disk, not on a network share",
        )


def _set_pragma(raw: Any, name: str, wanted: str | int) -> str | int:
    raw.execute(f"PRAGMA {name} = {wanted}")
    value: str | int = raw.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _begin_immediate(connection: Connection) -> None:
    """Begin to write at once, so that writers queue; one who only reads needs no place in it."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _translate(failure: ExceptionContext) -> None:
    """Raise StorageFault in place of a disk error; do not translate programming errors."""
    cause = failure.original_exception
    if isinstance(cause, PratiqueError):
        raise cause
    if isinstance(cause, sqlite3.Error | UnicodeDecodeError) and _code(cause) in MEANINGS:
        raise _fault(cause) from cause


def _code(error: Exception) -> int:
    """Return SQLite's result code; text that cannot be decoded has none and counts as damage."""
    damage = isinstance(error, sqlite3.OperationalError | UnicodeDecodeError)
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT if damage else 0)
    return code & PRIMARY_CODE


def _fault(error: Exception) -> StorageFault:
    what, fix = MEANINGS.get(_code(error), ("The database does not work", "check its disk"))
    return StorageFault(what, why=f"SQLite says: {error}", fix=fix)


def _migrate(engine: Engine, migrations: Path) -> None:
    """Run the missing migrations in one transaction: all of them or none."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    try:
        with _ONE_MIGRATION, engine.begin() as connection:
            _require_known(connection, ScriptDirectory.from_config(config))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except PratiqueError:
        engine.dispose()
        raise
    except (SQLAlchemyError, CommandError) as error:
        engine.dispose()
        raise StorageFault(
            "The database cannot be opened",
            why=str(error),
            fix="restore it from a backup, or report this with the log",
        ) from error


def _require_known(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    newer = set(MigrationContext.configure(connection).get_current_heads()) - known
    if newer:
        raise StorageFault(
            "The database was written by a newer version of this program",
            why=f"its schema is {', '.join(sorted(newer))}, which is not known here",
            fix="install that version or a later one; nothing was changed",
        )
