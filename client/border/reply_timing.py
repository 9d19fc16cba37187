"""Delays replies to fixed moments, so that their timing reveals nothing about the records.

A reply that may depend on records leaves at one of a few moments after the request arrived. Each
moment is twice as late as the one before.
"""

import time
from collections.abc import Callable

SLOT_SECONDS = 0.05
MAX_RUNS = 1024
"""How many runs are remembered; the oldest are dropped."""

RunPhase = tuple[str, int]
"""Run id and phase."""


class ReplySlots:
    """Waits until `seconds`, or 2, 4, 8, … times that, have passed since a moment.

    With slots of equal length, an average over many replies would reveal how long each one took,
    and so the size of the cohort. Within one run and phase, no slot is shorter than an earlier one.
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
        """Remember the slots of this run, which the gate has admitted, from now on."""
        self._longest[run] = self._longest.pop(run, {})
        for old in list(self._longest)[:-MAX_RUNS]:
            del self._longest[old]

    def wait(self, arrived: float, run_phase: RunPhase) -> None:
        """Return at the next slot after `arrived`, a moment of the monotonic clock."""
        passed = self.monotonic() - arrived
        slot = self._longest_slot(run_phase)
        while slot <= passed:
            slot *= 2
        self._remember(run_phase, slot)
        self._sleep(slot - passed)

    def _longest_slot(self, run_phase: RunPhase) -> float:
        run, phase = run_phase
        return self._longest.get(run, {}).get(phase, self._seconds)

    def _remember(self, run_phase: RunPhase, slot: float) -> None:
        """Remember the slot if the gate admitted the run; so made-up ids displace no other run."""
        run, phase = run_phase
        if run in self._longest:
            self._longest[run][phase] = slot
