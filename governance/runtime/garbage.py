"""Keeps garbage collections of a daemon short.

A full collection visits every object that may be part of a cycle. In a node these are some 200,000,
nearly all of imported modules, and no thread runs for 0.1 to 0.3 s. A reply that this delays would
make all replies of its run later (`client.border.reply_timing`).
"""

import gc
import sys


class GarbageCollection:
    """Collects garbage when asked, and leaves what is then in use out of later collections."""

    def __init__(self) -> None:
        self._collected: tuple[int, int] | None = None

    def collect_if_changed(self, readings: int) -> None:
        """Collect all garbage if modules were imported, or records read, since the last time.

        `readings` is how often records were read. Until the next time, Python ignores the objects
        now in use (`gc.freeze`); then all of them are looked at again, so that no record that was
        read before an opt-out stays in memory.
        """
        current = (len(sys.modules), readings)
        if current != self._collected:
            self._collected = current
            gc.unfreeze()
            gc.collect()
            gc.freeze()
