"""Compares a whole stored log with its signed head: every entry, every hash, every node.

It reads once through the log in constant memory: about ten seconds for a million entries.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection

from governance.audit import merkle
from governance.audit.checkpoint import Checkpoint
from governance.audit.events import EventKind, parse_entry
from governance.audit.signed_head import SignedHead, Unsigned
from governance.errors import LogFault
from governance.runtime.schema_check import RESTORE

ENTRIES = "SELECT position, entry, leaf_hash FROM log_entries ORDER BY position"
NODES = "SELECT position, hash FROM log_nodes WHERE level = ? ORDER BY position"
LEVELS = "SELECT DISTINCT level FROM log_nodes"
WITHOUT_KEY = frozenset({EventKind.ROUND_OPENED, EventKind.ROUND_VOID})
"""What a process of the coordinator without the log's key may append."""


def intact_entries(
    connection: Connection,
    head: SignedHead | None,
    unsigned: Unsigned,
    given_out: Iterable[Checkpoint],
) -> Iterator[bytes]:
    """Yield every entry, oldest first. Raises LogFault for the first thing that is not as signed.

    Entries beyond the head are allowed as `unsigned` says. `given_out` are the log's checkpoints,
    by size: each must be of these entries. Reads in the caller's transaction, which must see no
    later writes.
    """
    if head is None and not unsigned.former:
        raise not_as_signed("it has no signed head")
    tree, checkpoints = _Tree(connection), _Checkpoints(given_out)
    signed = 0 if head is None else head.size
    checkpoints.require_of(tree)
    for position, entry, leaf in connection.exec_driver_sql(ENTRIES).yield_per(PAGE):
        if head is not None and position == signed:
            tree.require_root(head)
        tree.add(position, entry, leaf)
        checkpoints.require_of(tree)
        if position >= signed:
            _require_allowed(entry, position, head, unsigned)
        yield entry
    if head is not None and tree.size <= signed:
        tree.require_root(head)
    checkpoints.require_no_more()
    tree.require_no_more()


PAGE = 1000


class _Tree:
    """The tree of the entries read so far, compared with the stored nodes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.size = 0
        self._last: dict[int, bytes] = {}
        self._stored: dict[int, Iterator[Any]] = {}

    def add(self, position: object, entry: object, leaf: object) -> None:
        """Add an entry as it is stored. Raises LogFault if its place, hash or nodes are wrong."""
        if position != self.size or not isinstance(entry, bytes):
            raise not_as_signed(f"entry {self.size} is missing or of another kind")
        computed = merkle.leaf_hash(entry)
        if computed != leaf:
            raise not_as_signed(f"entry {self.size} does not match its hash")
        for node in list(merkle.completed_by(self.size, computed, self._read)):
            self._last[node.level] = node.hash
            if next(self._nodes(node.level), None) != (node.index, node.hash):
                raise not_as_signed(f"node {node.index} of level {node.level} is not as stored")
        self._last[0] = computed
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the entries so far."""
        return merkle.root_at(self.size, self._read)

    def require_root(self, head: SignedHead) -> None:
        """Raise LogFault unless the entries so far are those of the head."""
        if self.size < head.size:
            raise not_as_signed(f"it has {self.size} entries, and {head.size} were signed")
        if merkle.root_at(head.size, self._read) != head.root:
            raise not_as_signed(f"its first {head.size} entries are not those that were signed")

    def require_no_more(self) -> None:
        """Raise LogFault if the database holds nodes that the tree does not have."""
        levels = self._connection.exec_driver_sql(LEVELS).scalars().all()
        for level in levels:
            if level not in self._stored or next(self._nodes(level), None) is not None:
                raise not_as_signed(f"it has a node of level {level} that belongs to no entry")

    def _read(self, level: int, _index: int) -> bytes:
        return self._last[level]

    def _nodes(self, level: int) -> Iterator[Any]:
        if level not in self._stored:
            rows = self._connection.exec_driver_sql(NODES, (level,)).yield_per(PAGE)
            self._stored[level] = (tuple(row) for row in rows)
        return self._stored[level]


class _Checkpoints:
    """The checkpoints that the log gave out, each compared when the tree has its size."""

    def __init__(self, given_out: Iterable[Checkpoint]) -> None:
        self._left = iter(given_out)
        self._next = next(self._left, None)

    def require_of(self, tree: _Tree) -> None:
        """Raise LogFault if a checkpoint of the tree's size has another root."""
        while self._next is not None and self._next.size <= tree.size:
            if (self._next.size, self._next.root) != (tree.size, tree.root()):
                self.require_no_more()
            self._next = next(self._left, None)

    def require_no_more(self) -> None:
        """Raise LogFault if a checkpoint is left."""
        if self._next is not None:
            raise not_as_signed(
                f"its stored checkpoint of {self._next.size} entries is not one of this log"
            )


def _require_allowed(
    entry: bytes, position: int, head: SignedHead | None, unsigned: Unsigned
) -> None:
    """Raise LogFault unless an entry may be without a signature."""
    if head is None:
        return
    if not unsigned.keyless or parse_entry(entry).get("kind") not in WITHOUT_KEY:
        raise not_as_signed(f"entry {position} was never signed")


def not_as_signed(why: str) -> LogFault:
    """Return the fault of a state that another program has changed."""
    return LogFault(
        "The state database is not as this program signed it",
        why=why,
        fix=RESTORE,
    )
