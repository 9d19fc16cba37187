"""The log in a database: entries and complete tree nodes, appended in the caller's transaction."""

from collections.abc import Iterator

from sqlalchemy import BigInteger, Column, Connection, Engine, Integer, LargeBinary, MetaData, Table

from governance.audit.events import Event
from governance.audit.note import NoteKey
from keys.identity import SigningKey

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
"""Every head ever signed."""


class AuditLog:
    """One origin's log. Safe among threads and processes."""

    def __init__(self, engine: Engine, origin: str, key: SigningKey) -> None:
        self._engine, self._origin, self._key = engine, origin, key

    @property
    def verifier(self) -> NoteKey:
        """The key that verifies this log's checkpoints."""
        raise NotImplementedError

    def append(self, event: Event, connection: Connection | None = None) -> int:
        """Append and return the index; lasts on return, or once the caller's `connection` commits.

        Raises LogFault, StorageFault.
        """
        raise NotImplementedError

    def size(self, connection: Connection | None = None) -> int:
        """Return how many entries there are."""
        raise NotImplementedError

    def checkpoint(self) -> bytes:
        """Return the signed head, kept as the newest. Raises LogFault where the log does not
        continue the head signed last: nothing is signed for a log that was rolled back.
        """
        raise NotImplementedError

    def require_continuation(self, seen: bytes) -> None:
        """Raise LogFault unless this log continues the checkpoint `seen` earlier."""
        raise NotImplementedError

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the stored entries start ≤ index < end, as they were hashed."""
        raise NotImplementedError

    def export(self) -> Iterator[bytes]:
        """Yield one JSON line an entry, for `verify_export`, without line ends."""
        raise NotImplementedError

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the proof of entry `index` in the tree of `size`. Raises LogFault."""
        raise NotImplementedError

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Return the proof that the log of `size2` continues that of `size1`. Raises LogFault."""
        raise NotImplementedError
