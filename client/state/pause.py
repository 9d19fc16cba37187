"""Whether the operator has paused the node: durable, so that a restart does not undo it."""

import json
from datetime import datetime

from sqlalchemy import Connection, Engine

from client.state.key_value import get_value, set_value
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal

PAUSED = "paused"
LONGEST_REASON = 300


class PauseSwitch:
    """The switch in one state database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set(self, reason: str, now: datetime) -> None:
        """Pause: every message is refused until `clear`."""
        value = json.dumps({"reason": reason[:LONGEST_REASON], "since": now.isoformat()})
        with transaction(self._engine) as connection:
            set_value(connection, PAUSED, value)

    def clear(self) -> None:
        """Resume."""
        with transaction(self._engine) as connection:
            set_value(connection, PAUSED, None)

    def state(self, connection: Connection | None = None) -> dict[str, str] | None:
        """Return reason and time of the pause, None where the node is not paused."""
        with transaction(self._engine, connection) as opened:
            value = get_value(opened, PAUSED)
        found: dict[str, str] | None = None if value is None else json.loads(value)
        return found

    def require_running(self, connection: Connection | None = None) -> None:
        """Raise Refusal PAUSED while the node is paused."""
        state = self.state(connection)
        if state is not None:
            raise Refusal(
                ReasonCode.PAUSED,
                "This node is paused",
                why=state["reason"] or f"its operator paused it at {state['since']}",
                fix="run `pratique-node resume` when it may take part again",
            )
