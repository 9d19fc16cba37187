"""Create the audit log's tables in a migration, and triggers that make a table append-only.

Old migrations call these functions, so never edit one: add a new function instead. `op` is the
module `alembic.op` of a running migration.
"""

from typing import Any

import sqlalchemy as sa

_NODE_EXISTS = (
    "EXISTS (SELECT 1 FROM log_nodes n WHERE n.level = NEW.level AND n.position = NEW.position)"
)
_HEAD_IS_NOT_NEWER = "NEW.size <= (SELECT max(size) FROM log_heads)"


def create_log(op: Any) -> None:
    """Create the append-only tables of entries, nodes and heads."""
    op.create_table(
        "log_entries",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_nodes",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_heads",
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
    )
    keep(op, "log_entries", not_next("log_entries", "position"))
    keep(op, "log_nodes", _NODE_EXISTS)
    keep(op, "log_heads", _HEAD_IS_NOT_NEWER)


def create_signed_head(op: Any) -> None:
    """Create the table of the one signed head; it is replaced in each transaction."""
    op.create_table(
        "signed_head",
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
    )


def not_next(table: str, column: str) -> str:
    """Return the SQL condition that a NEW row does not follow the last row."""
    # The names are those of our own tables, written in migrations.
    return f"NEW.{column} <> (SELECT coalesce(max({column}) + 1, 0) FROM {table})"  # noqa: S608  # nosec B608


def keep(op: Any, table: str, unfit: str) -> None:
    """Make `table` append-only; refuse a NEW row for which the SQL condition `unfit` is true.

    The condition is needed because SQLite's INSERT OR REPLACE deletes without a DELETE trigger.
    """
    for action, condition in {"UPDATE": "TRUE", "DELETE": "TRUE", "INSERT": unfit}.items():
        op.execute(
            f"CREATE TRIGGER {table}_{action.lower()} BEFORE {action} ON {table} WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
