"""Make state databases as earlier releases left them: of any revision, with rows in each table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, MetaData, create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.types import Boolean, Float, Integer, LargeBinary

ROWS = 3
OF_ALEMBIC = "alembic_version"
Rows = Mapping[str, list[dict[str, Any]]]
"""Rows by table."""


def revisions(migrations: Path) -> list[str]:
    """Return every revision, the oldest first."""
    scripts = ScriptDirectory(str(migrations)).walk_revisions()
    return [script.revision for script in scripts][::-1]


def create_at_revision(file: Path, migrations: Path, revision: str) -> Engine:
    """Create a database of a revision, as the release of that revision did."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(migrations))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def fill(engine: Engine) -> Rows:
    """Write rows into every table, and return them all."""
    with engine.begin() as connection:
        for table in _tables(connection).values():
            for number in range(ROWS):
                row = {column.name: _value(column, number) for column in table.columns}
                connection.execute(table.insert().values(row))
    return rows(engine)


def rows(engine: Engine) -> Rows:
    """Return the rows of every table, as they are stored."""
    with engine.begin() as connection:
        return {
            name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for name, table in _tables(connection).items()
        }


def tables_with_losses(before: Rows, after: Rows) -> list[str]:
    """Return the tables in which some earlier row is missing or changed in its earlier columns."""
    return [
        name
        for name, known in before.items()
        if not _within(known, [{c: row.get(c) for c in known[0]} for row in after.get(name, [])])
    ]


def _within(known: list[dict[str, Any]], present: list[dict[str, Any]]) -> bool:
    """Whether every known row is present; an upgrade may add others."""
    return all(row in present for row in known)


def _tables(connection: Connection) -> dict[str, Any]:
    known = MetaData()
    known.reflect(connection)
    return {name: table for name, table in known.tables.items() if name != OF_ALEMBIC}


def _value(column: Column[Any], number: int) -> Any:
    if isinstance(column.type, Boolean):
        return number % 2 == 1
    if isinstance(column.type, Integer):
        return number
    if isinstance(column.type, Float):
        return number / 2
    return (
        bytes([number] * 40) if isinstance(column.type, LargeBinary) else f"{column.name} {number}"
    )
