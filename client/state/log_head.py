"""Detects a state database that is older than what this node has already sent.

A database restored from a copy is complete and correct, but older than the last reply. Its ledger
would charge too little, and its journal would let noise be drawn a second time. So a small file
beside the database holds the signed head of the log: its size and root, and a counter that rises
with each change of the state. It is replaced before any reply leaves. A log that does not continue
from this file is not used, nor a state with a lower counter. The order is: the database commits,
the file is replaced, the reply leaves. So the file is never ahead of the log, and a crash never
looks like a restored copy.

The file must not be in any backup. If it is missing beside a log, the log came from a copy.
"""

from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Engine

from client.errors import NodeFault
from client.home import NodeHome
from client.state.key_value import get_value, set_value
from client.state.state_check import StateCheck
from governance.audit.checkpoint import Checkpoint, parse_checkpoint
from governance.audit.log import AuditLog
from governance.audit.signed_head import SignedHead
from governance.errors import LogFault
from governance.runtime.database import reading, transaction
from governance.runtime.files import write_atomic

NEVER_KEPT = "log-head-never-kept"
"""Set by the migration of a database whose program version did not write such a file."""
RESTORING = "restoring-since"
"""Set while `pratique-node restored` is not finished; until then the node does not start."""
MAX_HEAD_BYTES = 1024
HEAD = "log-head"


class LogHeadGuard:
    """The log-head file of one node. Thread-safe; only the node's daemon moves it forward."""

    def __init__(self, home: NodeHome, engine: Engine, log: AuditLog, check: StateCheck) -> None:
        self._home, self._engine, self._log, self._check = home, engine, log, check
        self._lock = Lock()
        self._counter: int | None = None

    def move(self) -> None:
        """Replace the file by the newest head, on disk on return; writes only if that is another.

        The first call in a process requires the newest log. Raises DocumentFault if the file
        cannot be written, NodeFault if the log is not the newest.
        """
        with self._lock:
            if self._counter is None:
                self.require_newest()
                self._check.sign_former()
                self._counter = 0
            head = self._signed_head()
            counter = 0 if head is None else head.counter
            if counter < self._counter:
                raise _older_state(_lower(counter, self._counter))
            if head is not None and counter != self._counter:
                self._write(head)

    def accept(self) -> None:
        """Move the file to this log, whatever it held before. Raises DocumentFault."""
        with self._lock:
            head = self._signed_head()
            if head is not None:
                self._write(head)

    def _write(self, head: SignedHead) -> None:
        write_atomic(self._home.log_head, head.note)
        if not self._counter:
            with transaction(self._engine) as connection:
                set_value(connection, NEVER_KEPT, None)
        self._counter = head.counter

    def _signed_head(self) -> SignedHead | None:
        with reading(self._engine) as connection:
            return self._log.signed_head(connection)

    def require_newest(self) -> None:
        """Raise NodeFault unless the log continues from the file. Changes nothing.

        Raises LogFault or StorageFault if the database was changed without the node's key. The file
        is read before the log, because a running daemon moves both forward.
        """
        if self._stored_value(RESTORING) is not None:
            raise _unfinished_restoration()
        self._require_newest()
        self._check.require_intact()

    def take_over(self) -> None:
        """Take over a database that need not be the newest, before anything is written to it.

        Raises LogFault or StorageFault if the database was changed without the node's key.
        """
        self._check.take_over()

    def shows_newest(self) -> bool:
        """Return whether the file shows that the log is the newest."""
        try:
            self._require_newest()
        except NodeFault:
            return False
        return True

    def known_size(self) -> int | None:
        """Return the size of the log that the file states; None if it cannot be read."""
        content = self._content()
        try:
            return None if content is None else self._read(content).checkpoint.size
        except LogFault:
            return None

    def _require_newest(self) -> None:
        content = self._content()
        if content is not None:
            try:
                known = self._read(content)
                self._log.require_head(known.checkpoint)
                known.require_reached(self._signed_head())
            except LogFault as fault:
                raise _older_state(fault.what) from None
        elif self._log.size() and self._stored_value(NEVER_KEPT) is None:
            raise _older_state(
                f"there is a log, but the file {self._home.log_head.name} is missing"
            )

    def _stored_value(self, name: str) -> str | None:
        with transaction(self._engine) as connection:
            return get_value(connection, name)

    def _content(self) -> bytes | None:
        try:
            with self._home.log_head.open("rb") as file:
                return file.read(MAX_HEAD_BYTES)
        except FileNotFoundError:
            return None

    def _read(self, content: bytes) -> "_Known":
        """Return what the file states; an earlier version wrote a checkpoint, without a counter."""
        try:
            return _Known(parse_checkpoint(content.decode(errors="replace")), None)
        except LogFault:
            head = self._log.open_head(content)
        return _Known(Checkpoint(HEAD, head.size, head.root), head)


@dataclass(frozen=True)
class _Known:
    """What the file states: a checkpoint, and the signed head that it is from, if any."""

    checkpoint: Checkpoint
    head: SignedHead | None

    def require_reached(self, present: SignedHead | None) -> None:
        """Raise LogFault if the database's head was signed before this one, or beside it."""
        if self.head is None:
            return
        counter = 0 if present is None else present.counter
        if counter < self.head.counter:
            raise LogFault(_lower(counter, self.head.counter))
        if present is not None and counter == self.head.counter and present != self.head:
            raise LogFault(f"Two states were signed with the number {counter}")


def _lower(counter: int, known: int) -> str:
    return f"Its state has the number {counter}, and number {known} was in use"


def _older_state(why: str) -> NodeFault:
    return NodeFault(
        "state.db is older than what this node has already sent, or may be older",
        why=f"{why}; charges may be missing from its ledger, and sent replies from its journal",
        fix="restore the newest copy of the node's whole folder; if there is none, run "
        "`pratique-node restored`, which assumes that all permitted budget was spent",
    )


def _unfinished_restoration() -> NodeFault:
    return NodeFault(
        "`pratique-node restored` was started and has not finished",
        why="what was spent after the copy was made is not charged yet",
        fix="run `pratique-node restored` again, and follow its instructions",
    )
