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
        self._again = False

    def collect_if_changed(self, readings: int) -> None:
        """Collect all garbage if modules were imported, or records read, since the last time.

        `readings` is how often records were read. Python then ignores the objects in use
        (`gc.freeze`). The next call collects once more, and looks at all of them again: a request
        under way may still have used records that were read before an opt-out.
        """
        current = (len(sys.modules), readings)
        changed = current != self._collected
        if changed or self._again:
            self._collected, self._again = current, changed
            gc.unfreeze()
            gc.collect()
            gc.freeze()
