"""Keeps a known party that calls what it may not from filling the audit log.

The first refused call of a kind is logged at once; further ones of the same party and kind are
counted, and the count is logged with the next entry, at most once a minute.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from governance.audit.events import EventKind, Outcome
from keys.certificates import Peer

PAUSE = timedelta(minutes=1)
Kind = tuple[str, str, str]


class CallRefusals:
    """Logs the refused calls of known parties."""

    def __init__(self, note: Callable[..., None], clock: Callable[[], datetime]) -> None:
        """`note` appends an event with its details to the coordinator's log."""
        self._note, self._clock = note, clock
        self._last: dict[Kind, datetime] = {}
        self._unlogged: dict[Kind, int] = {}

    def __call__(self, peer: Peer, call: str, why: str) -> None:
        """Take note of one refused call."""
        kind, now = (peer.country, peer.role.value, call), self._clock()
        if kind in self._last and now - self._last[kind] < PAUSE:
            self._unlogged[kind] = self._unlogged.get(kind, 0) + 1
            return
        self._last[kind] = now
        again = self._unlogged.pop(kind, 0)
        self._note(
            EventKind.CALL_REFUSED,
            outcome=Outcome.REFUSED,
            subject=" ".join(kind),
            reason=f"{why} ({again} more since the last entry)" if again else why,
        )
