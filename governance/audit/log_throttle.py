"""Which of many similar events are logged one by one, and which are only counted.

A party that repeats the same refused message for ever must not fill a log. The first events of a
kind within a window are logged one by one; then one entry says that counting has begun; when the
window is over, another gives their number. A window is as long as `shortest`, and twice as long as
the one before if that one ended in counting, up to `longest`.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Generic, TypeVar

ONE_BY_ONE = 10
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(hours=1)

Kind = TypeVar("Kind", bound=Hashable)


class LogAction(Enum):
    """What must be logged about one event."""

    WHOLE = "whole"
    COUNTING_BEGINS = "counting begins"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Counted(Generic[Kind]):
    """How many events of one kind were only counted, between two moments."""

    kind: Kind
    number: int
    since: datetime
    until: datetime


@dataclass
class _Window:
    began: datetime
    length: timedelta
    seen: int = 0

    def over(self, now: datetime) -> bool:
        """A clock that was set back ends a window too."""
        return not self.began <= now < self.began + self.length


@dataclass
class LogThrottle(Generic[Kind]):
    """The windows under way, by kind. It reads no clock, and holds one window for each kind."""

    one_by_one: int = ONE_BY_ONE
    shortest: timedelta = SHORTEST
    longest: timedelta = LONGEST
    _windows: dict[Kind, _Window] = field(default_factory=dict)

    def note(self, kind: Kind, now: datetime) -> LogAction:
        """Count an event, and return what to log of it; call `settled` first."""
        window = self._windows.setdefault(kind, _Window(now, self.shortest))
        window.seen += 1
        if window.seen <= self.one_by_one:
            return LogAction.WHOLE
        first = self._counted(window) == 1
        return LogAction.COUNTING_BEGINS if first else LogAction.NOTHING

    def settled(self, now: datetime, *, ending: bool = False) -> list[Counted[Kind]]:
        """Return the counts of the windows that are over (`ending`: of all), and end them."""
        counts = []
        for kind, window in list(self._windows.items()):
            if not (ending or window.over(now)):
                continue
            if self._counted(window):
                counts.append(Counted(kind, self._counted(window), window.began, now))
            self._renew(kind, window, now)
        return counts

    def _counted(self, window: _Window) -> int:
        return max(0, window.seen - self.one_by_one)

    def _renew(self, kind: Kind, window: _Window, now: datetime) -> None:
        if not window.seen:
            del self._windows[kind]
            return
        longer = min(2 * window.length, self.longest)
        self._windows[kind] = _Window(now, longer if self._counted(window) else self.shortest)
