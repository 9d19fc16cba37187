"""The digest of a stored row, by which a log entry names exactly this row.

It is computed from what the database holds, before any type of ours reads it: a damaged value has
another digest, and never an error. A column without a value is left out, so that a later version
can add columns without changing the digests of earlier rows.
"""

from collections.abc import Collection, Iterator

from sqlalchemy import ColumnElement, Connection, Table, select, type_coerce
from sqlalchemy.types import NULLTYPE

from protocols.wire.encoding import canonical_json, digest


def row_digests(
    connection: Connection,
    table: Table,
    *wanted: ColumnElement[bool],
    without: Collection[str] = (),
) -> Iterator[str]:
    """Yield the digests of the wanted rows of a table, in no order; columns `without` may change.

    Raises StorageFault if the database cannot be read.
    """
    columns = [column for column in table.columns if column.name not in without]
    query = select(*(type_coerce(column, NULLTYPE) for column in columns)).where(*wanted)
    names = [column.name for column in columns]
    for row in connection.execute(query):
        values = {n: _text(v) for n, v in zip(names, row, strict=True) if v is not None}
        yield digest(canonical_json({"table": table.name, "row": values}))


def _text(value: object) -> str:
    """Return the value with its storage class: SQLite keeps any class in any column."""
    return f"blob:{value.hex()}" if isinstance(value, bytes) else f"{type(value).__name__}:{value}"
