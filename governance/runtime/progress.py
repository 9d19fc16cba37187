"""Whether a daemon's loops move: each says, whenever it moves, by when it will have moved again.

A loop that waits for the network and one that works on a large message may take different times;
so the bound is the loop's own, set again at each step.
"""

import time
from collections.abc import Callable
from threading import Lock


class Progress:
    """The loops of one daemon. Safe among threads; takes no lock for longer than a look."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`monotonic` is in seconds."""
        self._monotonic = monotonic
        self._due: dict[str, float] = {}
        self._lock = Lock()

    def moved(self, loop: str, within: float) -> None:
        """Note that a loop has moved, and that it will again within so many seconds."""
        with self._lock:
            self._due[loop] = self._monotonic() + within

    def ended(self, loop: str) -> None:
        """Note that a loop has ended as it should: nothing is expected of it any more."""
        with self._lock:
            self._due.pop(loop, None)

    def stuck(self) -> tuple[str, ...]:
        """Return the loops that have not moved in time."""
        now = self._monotonic()
        with self._lock:
            return tuple(sorted(loop for loop, due in self._due.items() if now > due))
