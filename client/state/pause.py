"""Stores whether the operator has paused the node; a restart does not undo a pause."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from client.state.key_value import get_value, set_value
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal

PAUSED = "paused"
LONGEST_REASON = 300


@dataclass(frozen=True)
class Pause:
    """A pause as the database holds it: the operator's reason, and its start as ISO 8601 text."""

    reason: str
    since: str


class PauseSwitch:
    """The pause switch in one state database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set(self, reason: str, now: datetime) -> None:
        """Pause the node: every message is refused until `clear`."""
        pause = Pause(reason[:LONGEST_REASON], now.isoformat())
        with transaction(self._engine) as connection:
            set_value(connection, PAUSED, json.dumps(asdict(pause)))

    def clear(self) -> None:
        """Resume the node."""
        with transaction(self._engine) as connection:
            set_value(connection, PAUSED, None)

    def state(self, connection: Connection | None = None) -> Pause | None:
        """Return the pause, or None if the node is not paused."""
        with transaction(self._engine, connection) as opened:
            value = get_value(opened, PAUSED)
        return None if value is None else Pause(**json.loads(value))

    def require_running(self, connection: Connection | None = None) -> None:
        """Raise Refusal PAUSED while the node is paused."""
        pause = self.state(connection)
        if pause is not None:
            raise Refusal(
                ReasonCode.PAUSED,
                "This node is paused",
                why=pause.reason or f"its operator paused it at {pause.since}",
                fix="run `pratique-node resume` when the node may take part again",
            )
