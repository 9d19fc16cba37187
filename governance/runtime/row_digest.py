"""The digest of a stored row, by which a log entry names exactly this row, and of several rows.

It is computed from what the database holds, before any type of ours reads it: a damaged value has
another digest, and never an error. A column without a value is left out, so that a later version
can add columns without changing the digests of earlier rows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select, type_coerce
from sqlalchemy.types import NULLTYPE

from protocols.wire.encoding import canonical_json, digest

NO_ROWS = digest(canonical_json([]))
"""What `rows_digest` returns if there are no rows."""


def row_digests(
    connection: Connection,
    table: Table,
    *wanted: ColumnElement[bool],
    without: Collection[str] = (),
) -> Iterator[str]:
    """Yield the digests of the wanted rows of a table, in no order; columns `without` may change.

    Raises StorageFault if the database cannot be read.
    """
    for name, _ in rows_with_digests(connection, table, *wanted, without=without):
        yield name


def rows_with_digests(
    connection: Connection,
    table: Table,
    *wanted: ColumnElement[bool],
    without: Collection[str] = (),
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the same, each with the values of its row as they are stored, by column."""
    names = [column.name for column in table.columns]
    for row in _rows(connection, table, wanted):
        values = dict(zip(names, row, strict=True))
        texts = {n: _text(v) for n, v in values.items() if v is not None and n not in without}
        yield digest(canonical_json({"table": table.name, "row": texts})), values


def rows_digest(connection: Connection, table: Table, *wanted: ColumnElement[bool]) -> str:
    """Return one digest of all wanted rows of a table, and of every value in them.

    Raises StorageFault if the database cannot be read.
    """
    names = [column.name for column in table.columns]
    rows = (zip(names, row, strict=True) for row in _rows(connection, table, wanted))
    texts = ({name: _short(v) for name, v in row if v is not None} for row in rows)
    return digest(canonical_json(sorted(digest(canonical_json(row)) for row in texts)))


def _rows(
    connection: Connection, table: Table, wanted: Sequence[ColumnElement[bool]]
) -> Iterator[Sequence[Any]]:
    columns = (type_coerce(column, NULLTYPE) for column in table.columns)
    return iter(connection.execute(select(*columns).where(*wanted)))


def _short(value: object) -> str:
    """Return the value with its storage class; of bytes, which may be many, a digest."""
    return digest(value) if isinstance(value, bytes) else _text(value)


def _text(value: object) -> str:
    """Return the value with its storage class: SQLite keeps any class in any column."""
    return f"blob:{value.hex()}" if isinstance(value, bytes) else f"{type(value).__name__}:{value}"
