"""Logs refused calls of known parties, and counts repetitions so that they cannot fill the log.

The first refused call of a party and kind is logged at once. Further ones within a minute are
counted, and the number is logged with the next refusal after that minute.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from governance.audit.events import EventKind, Outcome
from governance.audit.log_throttle import LogAction, LogThrottle
from keys.certificates import Peer

PAUSE = timedelta(minutes=1)
Kind = tuple[str, str, str]
"""Country, role and call."""


class CallRefusals:
    """Logs the refused calls of known parties."""

    def __init__(self, note: Callable[..., None], clock: Callable[[], datetime]) -> None:
        """`note` appends an event with its details to the coordinator's audit log."""
        self._note, self._clock = note, clock
        self._throttle = LogThrottle[Kind](one_by_one=1, shortest=PAUSE, longest=PAUSE)

    def __call__(self, peer: Peer, call: str, why: str) -> None:
        """Log or count one refused call."""
        kind, now = (peer.country, peer.role.value, call), self._clock()
        for counted in self._throttle.settled(now):
            self._log(counted.kind, f"{counted.number} more calls of this kind were refused")
        if self._throttle.note(kind, now) is LogAction.WHOLE:
            self._log(kind, why)

    def _log(self, kind: Kind, reason: str) -> None:
        self._note(
            EventKind.CALL_REFUSED,
            outcome=Outcome.REFUSED,
            subject=" ".join(kind),
            reason=reason,
        )
