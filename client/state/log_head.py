"""How far the log had come when something last left: kept apart from the database it vouches for.

A database that was put back from a copy is whole and correct, and older than what has left since:
its ledger would charge too little, and its journal would let noise be drawn a second time. So a
small file beside it holds size and root of the log, replaced before any reply leaves. A log that
does not continue it is not used. The order makes no crash look like a copy put back: the database
commits, then the file is replaced, then the reply leaves, so the file is never ahead of the log.

The file belongs in no backup. Where it is missing beside a log, the log came from somewhere.
"""

from threading import Lock

from sqlalchemy import Engine

from client.errors import OperationFault
from client.home import NodeHome
from client.state.key_value import get_value, set_value
from governance.audit.checkpoint import Checkpoint, parse_checkpoint
from governance.audit.log import AuditLog
from governance.errors import LogFault
from governance.runtime.database import transaction
from governance.runtime.files import write_atomic

NEVER_KEPT = "log-head-never-kept"
"""Set by the migration of a database whose program kept no such file."""
RESTORING = "restoring-since"
"""Set while `pratique-node restored` is under way; the node does not start before its end."""
LARGEST_HEAD = 1024


class LogHeadGuard:
    """The file of one node. Safe among threads; its daemon alone moves it."""

    def __init__(self, home: NodeHome, engine: Engine, log: AuditLog) -> None:
        self._home, self._engine, self._log = home, engine, log
        self._lock = Lock()
        self._size: int | None = None

    def move(self) -> None:
        """Cover every entry of the log, on disk when this returns; writes only where it has grown.

        The first time in a process it must be the newest log. Raises DocumentFault where the file
        cannot be written, OperationFault where the log is not the newest.
        """
        with self._lock:
            if self._size is None:
                self.require_newest()
            if self._size != self._log.size():
                self._write()

    def accept(self) -> None:
        """Let the file follow the log, whatever it said before. Raises DocumentFault."""
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
        """Raise OperationFault unless the log continues what has left. Changes nothing.

        The file is read first: a daemon that is running moves both on.
        """
        if self._mark(RESTORING) is not None:
            raise _unfinished()
        self._require_vouched()

    def vouched(self) -> bool:
        """Whether the log is the newest by all that the file says."""
        try:
            self._require_vouched()
        except OperationFault:
            return False
        return True

    def known(self) -> Checkpoint | None:
        """Return what the file says; None where nothing can be read from it."""
        text = self._text()
        try:
            return None if text is None else parse_checkpoint(text)
        except LogFault:
            return None

    def _require_vouched(self) -> None:
        text = self._text()
        if text is not None:
            try:
                self._log.require_head(parse_checkpoint(text))
            except LogFault as fault:
                raise _older(fault.what) from None
        elif self._log.size() and self._mark(NEVER_KEPT) is None:
            raise _older(f"there is a log, and no {self._home.log_head.name} that vouches for it")

    def _mark(self, name: str) -> str | None:
        with transaction(self._engine) as connection:
            return get_value(connection, name)

    def _text(self) -> str | None:
        try:
            with self._home.log_head.open("rb") as file:
                return file.read(LARGEST_HEAD).decode(errors="replace")
        except FileNotFoundError:
            return None


def _older(why: str) -> OperationFault:
    return OperationFault(
        "state.db is older than what this node has already let out, or not known to be the newest",
        why=f"{why}; its ledger may lack charges, and its journal what was sent",
        fix="put back the newest copy of the node's whole folder; if there is none, run "
        "`pratique-node restored`, which takes the worst as spent",
    )


def _unfinished() -> OperationFault:
    return OperationFault(
        "`pratique-node restored` was begun and has not come to its end",
        why="what was spent since the copy was made is not charged yet",
        fix="run `pratique-node restored` again, and do what it says",
    )
