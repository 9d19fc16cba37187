"""Signs the log's head in every transaction that appends to it or changes what it covers.

One row holds the newest signed head. It is replaced in the transaction that it covers, so both are
stored or neither is: a crash leaves no log that is longer than its signed head. The signer keeps
the log's outline (`merkle.Frontier`) in memory and adds what this process appends. So it never
signs a root that it has read from a database that changed meanwhile.

The note has the origin with `/state`, the size, the root, a digest of the other rows that the head
covers, and a counter that rises with each signature (docs/adr/0025). So of two heads of the same
size, the later one is known. It is not the log's checkpoint, which is made from it on request.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Connection, Engine, delete, event, insert, select

from governance.audit.merkle import HASH_BYTES, Frontier
from governance.audit.note import NoteKey, open_note, sign_note
from governance.audit.stored_tree import nodes_of, signed_head, size_of
from governance.errors import LogFault
from governance.runtime.schema_check import RESTORE
from keys.identity import SigningKey
from protocols.wire.encoding import digest

NOTHING_COVERED = digest(b"")
"""The digest that a head states if it covers no other rows."""
SUFFIX = "/state"
TEXT = re.compile(
    r"(?P<name>[^\s+]+)\n(?P<size>0|[1-9][0-9]{0,15})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"(?P<covered>sha256:[0-9a-f]{64})\n(?:(?P<counter>[1-9][0-9]{0,15})\n)?"
)
"""An earlier version signed heads without a counter."""
_LEAVES, _COVERED = "pratique-appended-leaves", "pratique-covered-before"

Covered = Callable[[Connection], str]
"""Returns the digest of the other rows that the head covers."""


@dataclass(frozen=True)
class Unsigned:
    """Which entries may be in the log without a signature, until the next commit signs them.

    `keyless`: those that this program appends in processes without the key. `former`: all of them,
    if there is no signed head at all, because the version before signed none.
    """

    keyless: bool = False
    former: bool = False


@dataclass(frozen=True)
class SignedHead:
    """A verified head: size and root of the log, and the digest of the other rows it covers.

    `counter` is the number of heads that were signed, this one included; 0 if an earlier version
    signed it. `note` are the bytes that were verified.
    """

    size: int
    root: bytes
    covered: str
    counter: int
    note: bytes


def nothing_covered(_connection: Connection) -> str:
    """Return the digest of no rows."""
    return NOTHING_COVERED


def note_appended(connection: Connection, leaf: bytes) -> None:
    """Note, for the signer, that a leaf was appended in this connection's transaction."""
    connection.info.setdefault(_LEAVES, []).append(leaf)


def note_changing(connection: Connection, covered: Covered) -> None:
    """Note, for the signer, that this transaction is about to change rows that the head covers."""
    if _COVERED not in connection.info:
        connection.info[_COVERED] = covered(connection)


class HeadSigner:
    """Signs one log's head at each commit of one engine. Safe for threads and processes."""

    def __init__(
        self,
        engine: Engine,
        origin: str,
        key: SigningKey,
        *,
        covered: Covered,
        unsigned: Unsigned,
    ) -> None:
        self._name, self._key = origin + SUFFIX, key
        self._verifier = NoteKey(self._name, key.public)
        self._covered, self._unsigned = covered, unsigned
        self._lock = Lock()
        self._note: bytes | None = None
        self._frontier = Frontier()
        self._seen = 0
        event.listen(engine, "begin", _forget)
        event.listen(engine, "commit", self._on_commit)

    def read(self, connection: Connection) -> SignedHead | None:
        """Return the signed head; None if none was ever signed. Raises LogFault if it is forged."""
        note = _stored(connection)
        head = None if note is None else self.open(note)
        self._seen = max(self._seen, head.counter if head else 0)
        return head

    def _on_commit(self, connection: Connection) -> None:
        leaves, before = connection.info.pop(_LEAVES, []), connection.info.pop(_COVERED, None)
        if not leaves and before is None:
            return
        with self._lock:
            former_seen = self._seen
            head = self.read(connection)
            _require_newest(head, former_seen)
            self._require_covered(connection, head, before)
            frontier = self._outline(connection, head, size_of(connection) - len(leaves))
            for leaf in leaves:
                frontier.add(leaf)
            self._note = self._store(connection, frontier, head.counter + 1 if head else 1)
            self._frontier = frontier

    def _require_covered(
        self, connection: Connection, head: SignedHead | None, before: str | None
    ) -> None:
        """Raise LogFault if covered rows were changed since they were signed, by somebody else."""
        present = before or self._covered(connection)
        if head is not None and head.covered != present:
            raise _not_continued("the settings in it are not those signed before")

    def _outline(self, connection: Connection, head: SignedHead | None, size: int) -> Frontier:
        """Return the outline of the first `size` entries. Raises LogFault if it must not be signed.

        The outline in memory is used if the stored head is the one that it belongs to. Otherwise
        another process signed meanwhile, or the last transaction failed at its commit.
        """
        current = head is not None and head.note == self._note
        frontier = self._frontier.copy() if current else self._signed_outline(connection, head)
        more = size - frontier.size
        if more < 0 or (more and not self._may_be_longer(head)):
            raise _not_continued(f"it has {size} entries, and {frontier.size} are signed")
        return self._longer(connection, frontier, size) if more else frontier

    def _signed_outline(self, connection: Connection, head: SignedHead | None) -> Frontier:
        """Return the outline of the entries that the stored head signs."""
        if head is None:
            return Frontier()
        frontier = Frontier.of(head.size, nodes_of(connection))
        if frontier.root() != head.root:
            raise _not_continued(f"its first {head.size} entries are not those signed before")
        return frontier

    def _may_be_longer(self, head: SignedHead | None) -> bool:
        return self._unsigned.former if head is None else self._unsigned.keyless

    def _longer(self, connection: Connection, frontier: Frontier, size: int) -> Frontier:
        """Return the outline with the entries that are not signed yet."""
        read = nodes_of(connection)
        if not frontier.size:
            return Frontier.of(size, read)
        while frontier.size < size:
            frontier.add(read(0, frontier.size))
        return frontier

    def _store(self, connection: Connection, frontier: Frontier, counter: int) -> bytes:
        """Sign and store the head; return its note."""
        root, covered = base64.b64encode(frontier.root()).decode(), self._covered(connection)
        text = f"{self._name}\n{frontier.size}\n{root}\n{covered}\n{counter}\n"
        note = sign_note(text, self._name, self._key)
        connection.execute(delete(signed_head))
        connection.execute(insert(signed_head).values(position=0, note=note))
        return note

    def open(self, note: bytes) -> SignedHead:
        """Return the head that the note signs. Raises LogFault if this log's key did not sign it.

        It may be a head that was replaced since.
        """
        try:
            match = TEXT.fullmatch(open_note(note, self._verifier))
        except LogFault as fault:
            raise _not_continued(f"its signed head is not valid ({fault.what})") from fault
        root = base64.b64decode(match["root"]) if match else b""
        if not match or match["name"] != self._name or len(root) != HASH_BYTES:
            raise _not_continued("its signed head is not readable")
        counter = int(match["counter"] or 0)
        return SignedHead(int(match["size"]), root, match["covered"], counter, note)


def _forget(connection: Connection) -> None:
    """Forget what a transaction noted that was rolled back."""
    connection.info.pop(_LEAVES, None)
    connection.info.pop(_COVERED, None)


def _stored(connection: Connection) -> bytes | None:
    rows = [tuple(row) for row in connection.execute(select(signed_head))]
    if not rows:
        return None
    position, note = rows[0]
    if len(rows) > 1 or position != 0 or not isinstance(note, bytes):
        raise _not_continued("it does not hold exactly one signed head")
    return note


def _require_newest(head: SignedHead | None, seen: int) -> None:
    """Raise LogFault if an earlier head replaces one that this process has seen in the database."""
    counter = 0 if head is None else head.counter
    if counter < seen:
        raise _not_continued(f"its head has the number {counter}, and number {seen} was signed")


def _not_continued(why: str) -> LogFault:
    return LogFault(
        "The log does not continue the head that was signed last",
        why=f"{why}: its database was changed, or an older copy of it was restored",
        fix=RESTORE,
    )
