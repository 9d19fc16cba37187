"""CPU seconds of this process, and seconds of the clock on the wall, by who used them."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds by name: `seconds` as the process's own clock counts them, in every thread.

    CPU time is what a computation took, also on a machine that others use at the same time; a
    program that shares its work out over more threads gets nothing for it. `wall` is what passed
    meanwhile, waiting and other people's work included.
    """

    seconds: Counter[str] = field(default_factory=Counter)
    wall: Counter[str] = field(default_factory=Counter)
    _inside: tuple[float, float] = field(default=(0.0, 0.0), init=False)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Charge the block to `name`, and not to the block around it."""
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
