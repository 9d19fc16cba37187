"""Limit how many similar events are logged one by one; the rest are only counted.

A party that repeats the same refused message again and again must not fill the log. The first
events of a kind within a time window are logged one by one. Then one entry says that counting has
begun. When the window is over, another entry gives the count. The first window is as long as
`shortest`. If events were counted in a window, the next is twice as long, up to `longest`.
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
        """Whether the window is over; a clock that was set back ends it too."""
        return not self.began <= now < self.began + self.length


@dataclass
class LogThrottle(Generic[Kind]):
    """The throttle: one time window for each kind of event. It reads no clock."""

    one_by_one: int = ONE_BY_ONE
    shortest: timedelta = SHORTEST
    longest: timedelta = LONGEST
    _windows: dict[Kind, _Window] = field(default_factory=dict)

    def note(self, kind: Kind, now: datetime) -> LogAction:
        """Count an event, and return what to log about it; call `settled` first."""
        window = self._windows.setdefault(kind, _Window(now, self.shortest))
        window.seen += 1
        if window.seen <= self.one_by_one:
            return LogAction.WHOLE
        first = self._counted(window) == 1
        return LogAction.COUNTING_BEGINS if first else LogAction.NOTHING

    def settled(self, now: datetime, *, ending: bool = False) -> list[Counted[Kind]]:
        """Return the counts of the windows that are over, or of all if `ending`; renew these."""
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
