"""Opens the coordinator's log, and checks that nobody has changed it while the daemon did not run.

The server app writes the entries of rounds without the log's key; the daemon signs them within a
second, and at its next own entry. So the last rounds before a crash may be unsigned.
"""

from datetime import datetime

from sqlalchemy import Engine

from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.audit.log_key import LogKey
from governance.audit.signed_head import Unsigned
from governance.runtime.database import reading
from governance.runtime.schema_check import require_own_schema, require_whole
from protocols.wire.signed_message import COORDINATOR
from server.state.tables import MIGRATIONS

SAID = "The log is signed from now on, as the version before left it"


def open_log(engine: Engine, origin: str, key: LogKey) -> AuditLog:
    """Return the coordinator's log, over an open state database."""
    return AuditLog(
        engine, origin, key.key, unsigned=Unsigned(keyless=True, former=not key.signs_heads)
    )


def take_over(log: AuditLog, now: datetime) -> None:
    """Check the log, and sign that of a version that signed none; before any other entry.

    Raises LogFault or StorageFault if the log is not as the coordinator signed it.
    """
    require_intact(log)
    with reading(log.engine) as connection:
        signed = log.signed_head(connection) is not None
    if not signed and log.size():
        log.append(Event(kind=EventKind.STATE_SIGNED, at=now, actor=COORDINATOR, reason=SAID))


def require_intact(log: AuditLog) -> None:
    """Raise LogFault or StorageFault if the log is not as the coordinator signed it."""
    with reading(log.engine) as connection:
        require_own_schema(connection, MIGRATIONS)
        require_whole(connection)
        for _ in log.verified_entries(connection):
            pass
