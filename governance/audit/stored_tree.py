"""The log's tables, and its Merkle tree as the database holds it."""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    func,
    select,
)

from governance.audit.merkle import ReadNode
from governance.errors import LogFault

LOG_TABLES = MetaData()

log_entries = Table(
    "log_entries",
    LOG_TABLES,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)

log_nodes = Table(
    "log_nodes",
    LOG_TABLES,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)
"""Complete nodes above the leaves, so that an append reads and writes O(log n) rows."""

log_heads = Table(
    "log_heads",
    LOG_TABLES,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)
"""Every head that was given out, as a signed checkpoint."""

signed_head = Table(
    "signed_head",
    LOG_TABLES,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)
"""One row, at position 0: the head that the last transaction signed."""


def size_of(connection: Connection) -> int:
    """Return the number of entries."""
    last = connection.scalar(select(func.max(log_entries.c.position)))
    return 0 if last is None else last + 1


def nodes_of(connection: Connection) -> ReadNode:
    """Return the reader of complete nodes; it raises LogFault for one that is missing."""

    def read(level: int, index: int) -> bytes:
        stored = connection.scalar(_node(level, index))
        if not isinstance(stored, bytes):
            raise damaged(f"the hash of node {index} at level {level} is missing")
        return stored

    return read


def _node(level: int, index: int) -> Select[bytes]:
    if level == 0:
        return select(log_entries.c.leaf_hash).where(log_entries.c.position == index)
    at_position = log_nodes.c.level == level, log_nodes.c.position == index
    return select(log_nodes.c.hash).where(*at_position)


def damaged(why: str) -> LogFault:
    """Return the fault of a log whose database does not hold what was stored."""
    return LogFault(
        "The log's database is damaged",
        why=why,
        fix="restore it from a backup, then compare it with an earlier checkpoint",
    )
