"""Tables as migrations create them, and the triggers that keep rows as they were inserted.

Migrations rely on what stands here: a change is a new function, never an edit. `op` is the module
`alembic.op` of a running migration.
"""

from typing import Any

import sqlalchemy as sa

_NODE_STANDS = (
    "EXISTS (SELECT 1 FROM log_nodes n WHERE n.level = NEW.level AND n.position = NEW.position)"
)
_HEAD_IS_NOT_NEWER = "NEW.size <= (SELECT max(size) FROM log_heads)"


def create_log(op: Any) -> None:
    """Create entries, nodes and heads, none of which ever changes."""
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
    keep(op, "log_nodes", _NODE_STANDS)
    keep(op, "log_heads", _HEAD_IS_NOT_NEWER)


def not_next(table: str, column: str) -> str:
    """Return the SQL condition under which a NEW row does not follow the last one."""
    # The names are those of our own tables, written in migrations.
    return f"NEW.{column} <> (SELECT coalesce(max({column}) + 1, 0) FROM {table})"  # noqa: S608  # nosec B608


def keep(op: Any, table: str, unfit: str) -> None:
    """Make `table` append-only; a NEW row that is `unfit`, a SQL condition, aborts too.

    The condition is needed: SQLite's INSERT OR REPLACE deletes without asking a DELETE trigger.
    """
    for action, condition in {"UPDATE": "TRUE", "DELETE": "TRUE", "INSERT": unfit}.items():
        op.execute(
            f"CREATE TRIGGER {table}_{action.lower()} BEFORE {action} ON {table} WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
