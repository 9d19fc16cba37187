"""Edits of a state database, generated from its schema: each table, column and row.

A column that a migration adds later is edited too, without a change here. The edits are those of
somebody who can write the file and has no key; an edit that SQLite itself refuses is left out.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from keys.errors import PratiqueError

Row = dict[str, Any]
Edit = Callable[[sqlite3.Connection], object]


@dataclass(frozen=True)
class RowEdit:
    """One edit: what is edited (a table, or `table.column`), how, and the statement for it."""

    subject: str
    way: str
    sql: str
    values: tuple[Any, ...]

    @property
    def table(self) -> str:
        """The table that is edited."""
        return self.subject.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.subject} {self.way}"

    def apply(self, raw: sqlite3.Connection) -> bool:
        """Edit the database; return False if a constraint of the table refuses it."""
        try:
            raw.execute(self.sql, self.values)
        except sqlite3.IntegrityError:
            return False
        return True


def tables(raw: sqlite3.Connection) -> list[str]:
    """Return the names of all tables."""
    named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in raw.execute(f"{named} ORDER BY name")]


def edited(raw: sqlite3.Connection, change: Edit | str) -> object:
    """Edit a database as one can with sqlite3; a text is SQL. Return what `change` returns.

    The triggers, which would refuse it, are dropped and made again.
    """
    triggers = _drop_triggers(raw)
    result = raw.executescript(change) if isinstance(change, str) else change(raw)
    for sql in triggers:
        with suppress(sqlite3.OperationalError):  # the table may be gone
            raw.execute(sql)
    return result


def _drop_triggers(raw: sqlite3.Connection) -> list[str]:
    made = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in made:
        raw.execute(f"DROP TRIGGER {name}")
    return [sql for _, sql in made]


def edits_of(raw: sqlite3.Connection, older: sqlite3.Connection) -> Iterator[RowEdit]:
    """Yield the edits of every table; `older` is the same database at an earlier time."""
    for table in tables(raw):
        present = _rows(raw, table)
        for row in present:
            yield _deletion(table, row)
        for row in present[:1] + present[1:][-1:]:
            yield from _changes(table, row, present)
            yield from _copies(table, row, _keys(raw, table))
        known = [{**row, "rowid": None} for row in present]
        for row in _rows(older, table):
            if {**row, "rowid": None} not in known:
                yield _insertion(table, row, "replayed")


def _rows(raw: sqlite3.Connection, table: str) -> list[Row]:
    cursor = raw.execute(f"SELECT rowid AS rowid, * FROM {table} ORDER BY rowid")  # noqa: S608
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _keys(raw: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, _, _, _, key in raw.execute(f"PRAGMA table_info({table})") if key]


def _deletion(table: str, row: Row) -> RowEdit:
    return RowEdit(table, "deleted", f"DELETE FROM {table} WHERE rowid = ?", (row["rowid"],))  # noqa: S608


def _changes(table: str, row: Row, present: list[Row]) -> Iterator[RowEdit]:
    for column, value in row.items():
        if column != "rowid":
            yield _change(table, row, column, "changed", other(value))
            if value is not None:
                yield _change(table, row, column, "emptied", None)
            others = [each[column] for each in present if each[column] not in (value, None)]
            if others:
                yield _change(table, row, column, "of another row", others[0])


def _change(table: str, row: Row, column: str, way: str, value: object) -> RowEdit:
    sql = f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?'  # noqa: S608
    return RowEdit(f"{table}.{column}", way, sql, (value, row["rowid"]))


def _copies(table: str, row: Row, keys: list[str]) -> Iterator[RowEdit]:
    for column in keys:
        yield _insertion(table, {**row, column: other(row[column])}, "copied")


def _insertion(table: str, row: Row, way: str) -> RowEdit:
    columns = [column for column in row if column != "rowid"]
    names, places = ", ".join(f'"{each}"' for each in columns), ", ".join("?" * len(columns))
    sql = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({places})"  # noqa: S608
    return RowEdit(table, way, sql, tuple(row[column] for column in columns))


def other(value: object) -> object:
    """Return another value of the same type, as like it as possible."""
    if value is None:
        return "x"
    if isinstance(value, int):
        return value + 1_000
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"
    text = str(value)
    return text[:-1] + ("0" if text[-1:] != "0" else "1")


def image_of(database: Path) -> bytes:
    """Return a copy of a database that `opened` reads."""
    with closing(sqlite3.connect(database)) as raw, closing(sqlite3.connect(":memory:")) as copy:
        raw.backup(copy)
        image = copy.serialize()
    rollback_journal = b"\1\1"  # in place of the write-ahead log, which needs a file
    return image[:18] + rollback_journal + image[20:]


def opened(image: bytes) -> sqlite3.Connection:
    """Return a connection to a new copy of the database, in memory."""
    raw = sqlite3.connect(":memory:", check_same_thread=False)
    raw.deserialize(image)
    return raw


def engine_on(raw: sqlite3.Connection) -> Engine:
    """Return an engine that uses this connection."""
    return create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)


def unnoticed(
    before: bytes, after: bytes, check: Callable[[Engine], None], *, only: Collection[str]
) -> set[str]:
    """Return the edits of these tables of `after` that `check` does not refuse."""
    with closing(opened(before)) as older, closing(opened(after)) as newer:
        edits = [edit for edit in edits_of(newer, older) if edit.table in only]
    assert {edit.table for edit in edits} == set(only)
    return {str(edit) for edit in edits if not _is_noticed(after, edit, check)}


def _is_noticed(image: bytes, edit: RowEdit, check: Callable[[Engine], None]) -> bool:
    """Whether the check refuses the edited database, or SQLite the edit."""
    with closing(opened(image)) as raw:
        if not edited(raw, edit.apply):
            return True
        raw.commit()
        try:
            check(engine_on(raw))
        except PratiqueError:
            return True
    return False
