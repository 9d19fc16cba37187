"""Detect stuck loops of a daemon: at each step, a loop says by when its next step is due.

A loop that waits for the network and one that works on a large message need different times, so
each loop sets its own limit, again at each step.
"""

import time
from collections.abc import Callable
from threading import Lock


class Progress:
    """The progress of one daemon's loops. Thread-safe; it never holds its lock for long."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`monotonic` is in seconds."""
        self._monotonic = monotonic
        self._due: dict[str, float] = {}
        self._lock = Lock()

    def moved(self, loop: str, within: float) -> None:
        """Record a step of a loop; its next step is due in `within` seconds."""
        with self._lock:
            self._due[loop] = self._monotonic() + within

    def ended(self, loop: str) -> None:
        """Record that a loop ended normally; no further step is expected."""
        with self._lock:
            self._due.pop(loop, None)

    def stuck(self) -> tuple[str, ...]:
        """Return the loops whose next step is overdue."""
        now = self._monotonic()
        with self._lock:
            return tuple(sorted(loop for loop, due in self._due.items() if now > due))
