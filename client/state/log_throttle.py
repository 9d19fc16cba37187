"""Which of many like decisions are written down one by one, and which are only counted.

A coordinator that sends the same refused message for ever must not fill a country's disk. So the
first of a kind within a window stand in the log one by one; then one entry says that counting has
begun; and when the window is over, another says how many there were. A window is a minute long,
and twice as long as the one before where that one ended in counting, up to an hour.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from governance.audit.events import EventKind
from protocols.errors import ReasonCode

ONE_BY_ONE = 10
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(hours=1)


Kind = tuple[EventKind, ReasonCode | None]


class LogAction(Enum):
    """What is to be written about one decision."""

    WHOLE = "whole"
    COUNTING_BEGINS = "counting begins"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Counted:
    """How many decisions of one kind were only counted, between two moments."""

    kind: Kind
    number: int
    since: datetime
    until: datetime


@dataclass
class _Window:
    began: datetime
    length: timedelta = SHORTEST
    seen: int = 0

    @property
    def counted(self) -> int:
        return max(0, self.seen - ONE_BY_ONE)

    def over(self, now: datetime) -> bool:
        """A clock that was set back ends a window too."""
        return not self.began <= now < self.began + self.length

    def after(self, now: datetime) -> "_Window":
        length = min(2 * self.length, LONGEST) if self.counted else SHORTEST
        return _Window(now, length)


@dataclass
class LogThrottle:
    """The windows under way, by kind. It reads no clock, and is as large as there are kinds."""

    _windows: dict[Kind, _Window] = field(default_factory=dict)

    def note(self, kind: Kind, now: datetime) -> LogAction:
        """Count a decision, and say what to write of it; call `settled` first."""
        window = self._windows.setdefault(kind, _Window(now))
        window.seen += 1
        if window.seen <= ONE_BY_ONE:
            return LogAction.WHOLE
        return LogAction.COUNTING_BEGINS if window.counted == 1 else LogAction.NOTHING

    def settled(self, now: datetime, *, ending: bool = False) -> list[Counted]:
        """Return what was counted in the windows that are over (`ending`: in all), and end them."""
        found = []
        for kind, window in list(self._windows.items()):
            if not (ending or window.over(now)):
                continue
            if window.counted:
                found.append(Counted(kind, window.counted, window.began, now))
            self._next(kind, window, now)
        return found

    def _next(self, kind: Kind, window: _Window, now: datetime) -> None:
        if window.seen:
            self._windows[kind] = window.after(now)
        else:
            del self._windows[kind]
