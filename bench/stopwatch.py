"""CPU seconds of this process, by who used them."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds by name, as the process's own clock counts them, in every thread.

    CPU time is what a computation took, also on a machine that others use at the same time; a
    program that shares its work out over more threads gets nothing for it.
    """

    seconds: Counter[str] = field(default_factory=Counter)
    _inside: float = field(default=0.0, init=False)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Charge the block to `name`, and not to the block around it."""
        outside, self._inside = self._inside, 0.0
        start = time.process_time()
        try:
            yield
        finally:
            took = time.process_time() - start
            self.seconds[name] += took - self._inside  # type: ignore[assignment]
            self._inside = outside + took
