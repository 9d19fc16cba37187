"""Stores which session acts for each country's node, so that a restarted coordinator knows it.

`server.exchange.fencing` decides which one that is.
"""

from dataclasses import asdict, dataclass

from sqlalchemy import Delete, Engine, delete, insert, select

from governance.runtime.database import transaction
from server.state.tables import acting_sessions


@dataclass(frozen=True)
class ActingSession:
    """The session that acts for a country's node, by the hash of its secret.

    `incarnation` is the number of the node's start, `former` the hash of the start before it.
    `disputed`: two machines have the identity of this node.
    """

    country: str
    incarnation: int
    key: bytes
    former: bytes
    disputed: bool = False


class ActingSessions:
    """The acting sessions in the coordinator's state database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self) -> list[ActingSession]:
        """Return the stored sessions."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(acting_sessions)).mappings()
            return [ActingSession(**row) for row in rows]

    def save(self, session: ActingSession) -> None:
        """Store the session of a country in place of its former one."""
        with transaction(self._engine) as connection:
            connection.execute(_of(session.country))
            connection.execute(insert(acting_sessions).values(asdict(session)))

    def forget(self, country: str) -> None:
        """Delete the session of a country."""
        with transaction(self._engine) as connection:
            connection.execute(_of(country))


def _of(country: str) -> Delete:
    return delete(acting_sessions).where(acting_sessions.c.country == country)
