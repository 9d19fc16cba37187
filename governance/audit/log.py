"""The audit log in a database: entries and tree nodes, appended in the caller's transaction."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select

from governance.audit import merkle
from governance.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from governance.audit.events import Event, entry_bytes
from governance.audit.integrity import intact_entries, not_as_signed
from governance.audit.note import NoteKey
from governance.audit.signed_head import (
    Covered,
    HeadSigner,
    SignedHead,
    Unsigned,
    note_appended,
    note_changing,
    nothing_covered,
)
from governance.audit.stored_tree import (
    damaged,
    log_entries,
    log_heads,
    log_nodes,
    nodes_of,
    size_of,
)
from governance.errors import LogFault
from governance.runtime.database import reading, transaction
from keys.identity import SigningKey

PAGE = 500
SIGNED_BY_ALL = Unsigned()


class LogWriter:
    """Appends events to one origin's log, without a key. Safe for threads and processes."""

    def __init__(self, engine: Engine, origin: str) -> None:
        self._engine, self._origin = engine, origin

    def append(self, event: Event, connection: Connection | None = None) -> int:
        """Append an event and return its index; durable on return, or when `connection` commits.

        Raises LogFault, StorageFault.
        """
        with transaction(self._engine, connection) as open_connection:
            index = size_of(open_connection)
            _insert(open_connection, index, entry_bytes(event, origin=self._origin, index=index))
        return index


class AuditLog(LogWriter):
    """One origin's log, with the key that signs its head at each commit."""

    def __init__(
        self,
        engine: Engine,
        origin: str,
        key: SigningKey,
        *,
        covered: Covered = nothing_covered,
        unsigned: Unsigned = SIGNED_BY_ALL,
    ) -> None:
        """`covered` are other rows that the head covers; `unsigned` says which entries may wait."""
        super().__init__(engine, origin)
        self._key, self._verifier = key, NoteKey(origin, key.public)
        self._unsigned, self._covered = unsigned, covered
        self._signer = HeadSigner(engine, origin, key, covered=covered, unsigned=unsigned)

    @property
    def engine(self) -> Engine:
        """The database of this log."""
        return self._engine

    @property
    def verifier(self) -> NoteKey:
        """The key that verifies this log's checkpoints."""
        return self._verifier

    def size(self, connection: Connection | None = None) -> int:
        """Return how many entries there are."""
        with transaction(self._engine, connection) as open_connection:
            return size_of(open_connection)

    def signed_head(self, connection: Connection) -> SignedHead | None:
        """Return the head that the last transaction signed; None if none was. Raises LogFault."""
        return self._signer.read(connection)

    def sign_rest(self) -> None:
        """Sign the entries that processes without the key have appended, if there are any."""
        with reading(self._engine) as connection:
            head = self._signer.read(connection)
            signed = head is not None and head.size == size_of(connection)
        if not signed:
            with transaction(self._engine) as connection:
                note_changing(connection, self._covered)

    def verified_entries(self, connection: Connection) -> Iterator[bytes]:
        """Yield every entry of an intact log, oldest first; constant memory.

        Compares entries, hashes and nodes with each other and with the signed head. Raises
        LogFault, at the latest after the last entry, if they are not those that were signed.
        """
        head = self._signer.read(connection)
        yield from intact_entries(connection, head, self._unsigned, self._given_out(connection))
        if head is not None and head.covered != self._covered(connection):
            raise not_as_signed("the settings in it are not those that were signed")

    def open_head(self, note: bytes) -> SignedHead:
        """Return a head that a transaction signed, now or before. Raises LogFault for any other."""
        return self._signer.open(note)

    def _given_out(self, connection: Connection) -> Iterator[Checkpoint]:
        """Yield the checkpoints that were given out, by size. Raises LogFault for a forged one."""
        query = select(log_heads.c.size, log_heads.c.note).order_by(log_heads.c.size)
        for size, note in connection.execute(query):
            checkpoint = open_checkpoint(note if isinstance(note, bytes) else b"", self._verifier)
            if checkpoint.size != size:
                raise not_as_signed(f"its stored checkpoint of {size} entries is another one")
            yield checkpoint

    def checkpoint(self) -> bytes:
        """Return the signed head of the log as it is now, and store the head.

        Raises LogFault if the log does not continue the last signed head: the head of a log that
        lost or changed entries is never signed.
        """
        with self._engine.begin() as connection:
            last = _newest_head(connection)
            size = size_of(connection)
            if last is not None and self._continued_size(connection, last) == size:
                return last
            note = self._sign(connection, size)
            connection.execute(insert(log_heads).values(size=size, note=note))
            return note

    def head(self) -> Checkpoint:
        """Return the current size and root, unsigned."""
        with self._engine.begin() as connection:
            return self._head(connection, size_of(connection))

    def require_head(self, head: Checkpoint) -> None:
        """Raise LogFault unless this log's first entries are those of an earlier `head`."""
        with self._engine.begin() as connection:
            _require_continued(connection, head)

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the stored entries start ≤ index < end, as they were hashed."""
        return (entry for entry, _ in self._rows(start, end))

    def export(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield one JSON line for each entry start ≤ index < end, for `verify_export`.

        The lines have no line ends. An `end` beyond the log counts as its end.
        """
        for entry, leaf in self._rows(start, end):
            yield b'{"entry":' + entry + b',"leaf":"' + leaf.hex().encode() + b'"}'

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the proof of entry `index` in the tree of `size`. Raises LogFault."""
        with self._engine.begin() as connection:
            _require_size(connection, size)
            return merkle.inclusion_proof(index, size, nodes_of(connection))

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Return the proof that the log of `size2` continues that of `size1`. Raises LogFault."""
        with self._engine.begin() as connection:
            _require_size(connection, size2)
            return merkle.consistency_proof(size1, size2, nodes_of(connection))

    def _sign(self, connection: Connection, size: int) -> bytes:
        return sign_checkpoint(self._head(connection, size), self._key)

    def _head(self, connection: Connection, size: int) -> Checkpoint:
        return Checkpoint(self._origin, size, merkle.root_at(size, nodes_of(connection)))

    def _continued_size(self, connection: Connection, note: bytes) -> int:
        """Return the size of an earlier head. Raises LogFault unless this log continues it."""
        head = open_checkpoint(note, self._verifier)
        _require_continued(connection, head)
        return head.size

    def _rows(self, start: int, end: int | None) -> Iterator[tuple[bytes, bytes]]:
        """Read page by page, since one long transaction would block every writer."""
        size = self.size()
        last = size if end is None else min(end, size)
        for first in range(start, last, PAGE):
            position = log_entries.c.position
            wanted = position >= first, position < min(first + PAGE, last)
            with self._engine.begin() as connection:
                rows = connection.execute(select(log_entries).where(*wanted).order_by(position))
                page = rows.all()
            yield from map(_checked, page)


def _require_size(connection: Connection, size: int) -> None:
    current = size_of(connection)
    if current < size:
        raise LogFault(
            f"The log has {current} entries, but {size} were signed before",
            why="it was rolled back: an older copy of its database was restored",
            fix="restore the newest copy, and notify the privacy officer",
        )


def _require_continued(connection: Connection, head: Checkpoint) -> None:
    _require_size(connection, head.size)
    if merkle.root_at(head.size, nodes_of(connection)) != head.root:
        raise LogFault(
            f"The first {head.size} entries of the log are not those signed before",
            why="the log was forked, or its database changed",
            fix="keep both databases, and notify the privacy officer",
        )


def _newest_head(connection: Connection) -> bytes | None:
    newest = select(log_heads.c.note).order_by(log_heads.c.size.desc()).limit(1)
    return connection.execute(newest).scalar()


def _insert(connection: Connection, index: int, entry: bytes) -> None:
    leaf = merkle.leaf_hash(entry)
    row = {"position": index, "entry": entry, "leaf_hash": leaf}
    connection.execute(insert(log_entries).values(row))
    note_appended(connection, leaf)
    for node in merkle.completed_by(index, leaf, nodes_of(connection)):
        row = {"level": node.level, "position": node.index, "hash": node.hash}
        connection.execute(insert(log_nodes).values(row))


def _checked(row: Row[Any]) -> tuple[bytes, bytes]:
    """Check the types: SQLite allows any type in any column, so a changed file may hold others."""
    if not isinstance(row.entry, bytes) or not isinstance(row.leaf_hash, bytes):
        raise damaged(f"entry {row.position} is not what was stored")
    return row.entry, row.leaf_hash
