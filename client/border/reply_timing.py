"""The moments at which replies leave, so that their timing says nothing about the records.

A reply that may follow from records leaves at one of few moments after the request came, each twice
as late as the one before.
"""

import time
from collections.abc import Callable

SLOT_SECONDS = 0.05
MOST_RUNS = 1024

Place = tuple[str, int]
"""Run id and phase."""


class ReplySlots:
    """Waits until `seconds`, or 2, 4, 8, … times that, have passed since a moment.

    Equal slots would let an average over many replies tell how long each took, and that tells how
    large the cohort is. Within one run and phase no slot is shorter than an earlier one.
    """

    def __init__(
        self,
        seconds: float = SLOT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`monotonic` and `sleep` are in seconds."""
        self.monotonic = monotonic
        self._seconds, self._sleep = seconds, sleep
        self._longest: dict[str, dict[int, float]] = {}

    def know(self, run: str) -> None:
        """Remember slots of this run, which the gate has admitted, from now on."""
        self._longest[run] = self._longest.pop(run, {})
        for old in list(self._longest)[:-MOST_RUNS]:
            del self._longest[old]

    def wait(self, arrived: float, place: Place) -> None:
        """Return at the slot of `place` after `arrived`, a moment of the monotonic clock."""
        passed = self.monotonic() - arrived
        slot = self._earlier(place)
        while slot <= passed:
            slot *= 2
        self._remember(place, slot)
        self._sleep(slot - passed)

    def _earlier(self, place: Place) -> float:
        run, phase = place
        return self._longest.get(run, {}).get(phase, self._seconds)

    def _remember(self, place: Place, slot: float) -> None:
        """Only where the gate admitted the run: made-up ids make no other one forgotten."""
        run, phase = place
        if run in self._longest:
            self._longest[run][phase] = slot
