"""The outcome of the last `pratique-node restored`, kept for `status`."""

import json
from dataclasses import dataclass

from sqlalchemy import Engine

from client.state.key_value import get_value
from governance.runtime.database import transaction

RESTORED = "restored"
"""The name under which the outcome is kept in the node's database."""


@dataclass(frozen=True)
class Restored:
    """What a restoration came to. Of the log: entries in the copy, and before (None: not known)."""

    at: str
    entries: int
    before: int | None
    ended: int
    assumed: tuple[str, ...]

    def sentence(self) -> str:
        """Return it as the log says it."""
        had = "an unknown number" if self.before is None else str(self.before)
        return (
            f"State was put back from a copy of {self.entries} log entries, where there had been "
            f"{had} or more; {self.ended} live runs ended, {len(self.assumed)} runs that the copy "
            "does not know were charged"
        )


def last_restored(engine: Engine) -> dict[str, object] | None:
    """Return what the last restoration came to, as JSON values; None where there was none."""
    with transaction(engine) as connection:
        value = get_value(connection, RESTORED)
    found: dict[str, object] | None = None if value is None else json.loads(value)
    return found
