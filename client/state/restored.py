"""The outcome of the last `pratique-node restored`, stored for `status`."""

import json
from dataclasses import dataclass

from sqlalchemy import Engine

from client.state.key_value import get_value
from governance.runtime.database import transaction
from governance.runtime.wording import counted

RESTORED = "restored"
"""The name under which the outcome is stored in the node's database."""


@dataclass(frozen=True)
class Restored:
    """The outcome of a restoration.

    `at` is its time as ISO 8601 text. `entries` is the number of log entries in the copy, `before`
    the number that the log had before the restoration (None: not known). `ended` is the number of
    live runs that were ended; `assumed` names the study of each run that was charged.
    """

    at: str
    entries: int
    before: int | None
    ended: int
    assumed: tuple[str, ...]

    def sentence(self) -> str:
        """Return the outcome as the audit log records it."""
        before = "an unknown number" if self.before is None else f"at least {self.before}"
        return (
            "State was restored from a copy of "
            f"{counted(self.entries, 'log entry', 'log entries')}; the log had {before} before; "
            f"{counted(self.ended, 'live run')} ended, {self.charged}"
        )

    @property
    def charged(self) -> str:
        """How many runs were charged that the copy does not know."""
        verb = "was" if len(self.assumed) == 1 else "were"
        return f"{counted(len(self.assumed), 'run')} that the copy does not know {verb} charged"


def last_restored(engine: Engine) -> Restored | None:
    """Return the outcome of the last restoration; None if there was none."""
    with transaction(engine) as connection:
        value = get_value(connection, RESTORED)
    if value is None:
        return None
    fields = json.loads(value)
    return Restored(**{**fields, "assumed": tuple(fields["assumed"])})
