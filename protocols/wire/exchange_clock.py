"""Measures how this machine's clock differs from the exchange's.

The exchange states its time at the end of each call. It arrives later than it was stated, so the
exchange's clock is at least as far ahead as the difference shows, and more by what the answer took
to arrive. The measure is the coordinator's statement: it serves to warn people, and to sign in at
the SuperLink, which is the coordinator's. Nothing about documents or certificates depends on it.
"""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from keys.clock import utc_now

TIME_KEY = "pratique-time"
"""The trailing metadata with the exchange's time, in ISO 8601 text."""
SHORT_CALL = timedelta(seconds=2)
"""A longer call transfers much, and is measured only if nothing better is known."""
UNNOTICED = timedelta(seconds=5)
"""Clocks that differ by less are in step: Flower's own tolerance for a time that is ahead."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""A time before or after cannot be computed with: near the ends of the calendar it overflows."""
TOLERATED = timedelta(minutes=5)
"""Certificates are valid from five minutes before they were made, for clocks that differ so."""


class ExchangeClock:
    """The exchange's clock, as this machine knows it. Thread-safe."""

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        """`clock` is this machine's."""
        self._clock, self._lock = clock, threading.Lock()
        self._offset: timedelta | None = None

    @property
    def offset(self) -> timedelta | None:
        """How far the exchange's clock is ahead of this machine's; None if it is not known."""
        return self._offset

    @property
    def is_tolerated(self) -> bool:
        """Whether the clocks are not known to differ by too much for certificates."""
        return self._offset is None or abs(self._offset) <= TOLERATED

    def now(self) -> datetime:
        """Return the exchange's time; this machine's, if the difference is not known."""
        return self._clock() + (self._offset or timedelta())

    def note(self, metadata: Iterable[tuple[str, object]] | None, took: timedelta) -> None:
        """Note what a call's trailing metadata state; the call took `took`."""
        stated = _time_in(metadata)
        if stated is None:
            return
        with self._lock:
            if took <= SHORT_CALL or self._offset is None:
                self._offset = stated - self._clock()

    def difference(self) -> str:
        """Return a sentence if the clocks are not in step; an empty text if they are."""
        offset = self._offset
        if offset is None or abs(offset) <= UNNOTICED:
            return ""
        direction = "behind" if offset > timedelta() else "ahead of"
        return f"this machine's clock is {in_words(abs(offset))} {direction} the exchange's"


def in_words(span: timedelta) -> str:
    """Return a span as people say it: seconds, minutes, hours or days."""
    seconds = round(span.total_seconds())
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"about {round(seconds / size)} {name}"
    return f"{seconds} seconds"


def _time_in(metadata: Iterable[tuple[str, object]] | None) -> datetime | None:
    """Return the time that metadata state; None if there is none that can be read."""
    for name, value in metadata or ():
        if name == TIME_KEY:
            try:
                stated = datetime.fromisoformat(str(value))
            except ValueError:
                return None
            known = stated.utcoffset() is not None and EARLIEST <= stated < LATEST
            return stated if known else None
    return None
