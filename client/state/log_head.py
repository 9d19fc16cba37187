"""Detects a state database that is older than what this node has already sent.

A database restored from a copy is complete and correct, but older than the last reply. Its ledger
would charge too little, and its journal would let noise be drawn a second time. So a small file
beside the database holds the size and the root of the log. It is replaced before any reply leaves.
A log that does not continue from this file is not used. The order is: the database commits, the
file is replaced, the reply leaves. So the file is never ahead of the log, and a crash never looks
like a restored copy.

The file must not be in any backup. If it is missing beside a log, the log came from a copy.
"""

from threading import Lock

from sqlalchemy import Engine

from client.errors import NodeFault
from client.home import NodeHome
from client.state.key_value import get_value, set_value
from client.state.state_check import StateCheck
from governance.audit.checkpoint import Checkpoint, parse_checkpoint
from governance.audit.log import AuditLog
from governance.errors import LogFault
from governance.runtime.database import transaction
from governance.runtime.files import write_atomic

NEVER_KEPT = "log-head-never-kept"
"""Set by the migration of a database whose program version did not write such a file."""
RESTORING = "restoring-since"
"""Set while `pratique-node restored` is not finished; until then the node does not start."""
MAX_HEAD_BYTES = 1024


class LogHeadGuard:
    """The log-head file of one node. Thread-safe; only the node's daemon moves it forward."""

    def __init__(self, home: NodeHome, engine: Engine, log: AuditLog, check: StateCheck) -> None:
        self._home, self._engine, self._log, self._check = home, engine, log, check
        self._lock = Lock()
        self._size: int | None = None

    def move(self) -> None:
        """Move the file to the end of the log, on disk on return; writes only if the log has grown.

        The first call in a process requires the newest log. Raises DocumentFault if the file
        cannot be written, NodeFault if the log is not the newest.
        """
        with self._lock:
            if self._size is None:
                self.require_newest()
                self._check.sign_former()
            size = self._log.size()
            if self._size is not None and size < self._size:
                raise _older_state(f"the log has {size} entries, and had {self._size} before")
            if self._size != size:
                self._write()

    def accept(self) -> None:
        """Move the file to this log, whatever it held before. Raises DocumentFault."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        head = self._log.head()
        write_atomic(self._home.log_head, head.to_text().encode())
        if self._size is None:
            with transaction(self._engine) as connection:
                set_value(connection, NEVER_KEPT, None)
        self._size = head.size

    def require_newest(self) -> None:
        """Raise NodeFault unless the log continues from the file. Changes nothing.

        Raises LogFault or StorageFault if the database was changed without the node's key. The file
        is read before the log, because a running daemon moves both forward.
        """
        if self._stored_value(RESTORING) is not None:
            raise _unfinished_restoration()
        self._require_newest()
        self._check.require_intact()

    def require_intact(self) -> None:
        """Raise LogFault or StorageFault if the database was changed without the node's key."""
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

    def known(self) -> Checkpoint | None:
        """Return the checkpoint in the file; None if none can be read."""
        text = self._file_text()
        try:
            return None if text is None else parse_checkpoint(text)
        except LogFault:
            return None

    def _require_newest(self) -> None:
        text = self._file_text()
        if text is not None:
            try:
                self._log.require_head(parse_checkpoint(text))
            except LogFault as fault:
                raise _older_state(fault.what) from None
        elif self._log.size() and self._stored_value(NEVER_KEPT) is None:
            raise _older_state(
                f"there is a log, but the file {self._home.log_head.name} is missing"
            )

    def _stored_value(self, name: str) -> str | None:
        with transaction(self._engine) as connection:
            return get_value(connection, name)

    def _file_text(self) -> str | None:
        try:
            with self._home.log_head.open("rb") as file:
                return file.read(MAX_HEAD_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return None


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
