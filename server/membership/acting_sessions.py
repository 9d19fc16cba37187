"""Stores which session acts for each country's node, so that a restarted coordinator knows it.

`server.exchange.fencing` decides which one that is.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Delete, Engine, Row, delete, insert, select

from governance.runtime.database import transaction
from server.state.tables import acting_sessions

KEY_BYTES = sha256().digest_size
"""Size of the hash by which a session is known."""


@dataclass(frozen=True)
class ActingSession:
    """The session that acts for a country's node, by the hash of its secret.

    `incarnation` is the number of the node's start. `earlier` has the hashes of the sessions that
    acted before it, the newest last. `disputed`: two machines have the identity of this node.
    """

    country: str
    incarnation: int
    key: bytes
    earlier: tuple[bytes, ...]
    disputed: bool = False


class ActingSessions:
    """The acting sessions in the coordinator's state database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self) -> list[ActingSession]:
        """Return the stored sessions."""
        with transaction(self._engine) as connection:
            return list(map(_session, connection.execute(select(acting_sessions)).all()))

    def save(self, session: ActingSession) -> None:
        """Store the session of a country in place of its former one."""
        with transaction(self._engine) as connection:
            connection.execute(_of(session.country))
            connection.execute(insert(acting_sessions).values(_row(session)))

    def forget(self, country: str) -> None:
        """Delete the session of a country."""
        with transaction(self._engine) as connection:
            connection.execute(_of(country))


def _session(row: Row[Any]) -> ActingSession:
    starts = range(0, len(row.former), KEY_BYTES)
    earlier = tuple(row.former[start : start + KEY_BYTES] for start in starts)
    return ActingSession(row.country, row.incarnation, row.key, earlier, row.disputed)


def _row(session: ActingSession) -> dict[str, Any]:
    return {
        "country": session.country,
        "incarnation": session.incarnation,
        "key": session.key,
        "former": b"".join(session.earlier),
        "disputed": session.disputed,
    }


def _of(country: str) -> Delete:
    return delete(acting_sessions).where(acting_sessions.c.country == country)
