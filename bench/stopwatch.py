"""Measure CPU time of this process and wall-clock time, by name."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds by name: `seconds` is CPU time of all threads, `wall` is wall-clock time.

    CPU time measures a computation also on a busy machine, and does not become less if a program
    uses more threads. Wall-clock time includes waiting and the work of other programs.
    """

    seconds: Counter[str] = field(default_factory=Counter)
    wall: Counter[str] = field(default_factory=Counter)
    _inside: tuple[float, float] = field(default=(0.0, 0.0), init=False)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the block's time for `name`, and not for the block around it."""
        outside, self._inside = self._inside, (0.0, 0.0)
        start = _now()
        try:
            yield
        finally:
            took = _sum(_now(), start, -1)
            self.seconds[name] += took[0] - self._inside[0]  # type: ignore[assignment]
            self.wall[name] += took[1] - self._inside[1]  # type: ignore[assignment]
            self._inside = _sum(outside, took)


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _sum(
    one: tuple[float, float], other: tuple[float, float], sign: int = 1
) -> tuple[float, float]:
    return one[0] + sign * other[0], one[1] + sign * other[1]
