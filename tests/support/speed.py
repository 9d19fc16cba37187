"""Make the tests faster without changing what they test.

Work that always has the same result is done once in a process: SQL text, DuckDB's start, an empty
database. Nothing that a test writes is shared.
"""

import functools
import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import typer.testing
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from typer.main import get_command

import governance.runtime.database
from governance.runtime.garbage import GarbageCollection
from keys.errors import PratiqueError

MEMORY = Path("/dev/shm")
MEMORY_WANTED = 2 * 2**30
"""More than the folders of three sessions together need."""
PLACE = "PYTEST_DEBUG_TEMPROOT"
ROOT = Path(__file__).parents[2]


def keep_folders_in_memory() -> None:
    """Put temporary folders in memory; there an fsync is still called, and costs nothing."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_WANTED:
        os.environ.setdefault(PLACE, str(MEMORY))


def share_sql_texts() -> None:
    """Share compiled SQL statements between all engines."""
    first = create_engine("sqlite://")
    first.connect().close()

    def sharing(*args: Any, **options: Any) -> Engine:
        engine = create_engine(*args, **options)
        engine.dialect = engine.pool._dialect = first.dialect
        engine._compiled_cache = first._compiled_cache
        return engine

    governance.runtime.database.create_engine = sharing  # type: ignore[attr-defined]


def share_duckdb() -> None:
    """Start DuckDB once for each configuration; each reader gets its own connection to it.

    An internal error makes an instance refuse all that follows, so another one is started then.
    """
    start = functools.cache(lambda config: duckdb_connect(config=dict(config)))
    duckdb_connect = duckdb.connect

    def connect(*, config: dict[str, str]) -> duckdb.DuckDBPyConnection:
        options = frozenset(config.items())
        try:
            return start(options).cursor().execute("SELECT 1")
        except duckdb.Error:
            start.cache_clear()
        return start(options).cursor()

    duckdb.connect = connect


def migrate_once() -> None:
    """Create each program's empty database once, and copy it; do nothing to an up-to-date one.

    Migrations that a test writes are run, and so are the program's on an older database.
    """

    def migrated(engine: Engine, migrations: Path) -> None:
        if not migrations.is_relative_to(ROOT):
            MIGRATE(engine, migrations)
        elif _is_empty(engine):
            _file_of(engine).write_bytes(_empty_database(migrations))
        elif not _is_newest(engine, migrations):
            MIGRATE(engine, migrations)

    governance.runtime.database._migrate = migrated


MIGRATE = governance.runtime.database._migrate
"""The function that the programs use. A test of migrations restores it."""


def _file_of(engine: Engine) -> Path:
    assert engine.url.database is not None
    return Path(engine.url.database)


def _is_empty(engine: Engine) -> bool:
    file = _file_of(engine)
    return file.stat().st_size == 0 and not file.with_name(f"{file.name}-wal").exists()


def _is_newest(engine: Engine, migrations: Path) -> bool:
    try:
        with engine.begin() as connection:
            rows = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
    except (PratiqueError, SQLAlchemyError):
        return False
    return [row.version_num for row in rows] == [_newest(migrations)]


@functools.cache
def _newest(migrations: Path) -> str | None:
    return ScriptDirectory(str(migrations)).get_current_head()


@functools.cache
def _empty_database(migrations: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        file.touch(mode=0o600)
        engine = create_engine(f"sqlite:///{file}")
        event.listen(engine, "connect", governance.runtime.database._configure)
        event.listen(engine, "begin", governance.runtime.database._begin_immediate)
        MIGRATE(engine, migrations)
        engine.dispose()
        return file.read_bytes()


def build_commands_once() -> None:
    """Build the commands of each program once for typer's test runner."""
    vars(typer.testing)["_get_command"] = functools.cache(get_command)


def collect_no_garbage_in_daemons() -> None:
    """Leave out the full collections of a node's upkeep: a test process has a million objects."""
    GarbageCollection.collect_if_changed = lambda *_: None  # type: ignore[method-assign]


COLLECT_IF_CHANGED = GarbageCollection.collect_if_changed
"""The method that the node uses. Its own test restores it."""


def freeze_imported_objects() -> None:
    """Exclude imported objects from garbage collection, so that each collection is short."""
    gc.collect()
    gc.freeze()
