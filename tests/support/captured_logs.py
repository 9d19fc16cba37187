"""Configure logging as the daemons do, for a test, and restore it afterwards."""

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from governance.runtime.logs import DIVERTED, configure

Configure = Callable[..., logging.Handler]


class Lines(io.StringIO):
    """The lines that were logged."""

    def read_all(self) -> list[dict[str, Any]]:
        """Return every line's fields."""
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def only(self) -> dict[str, Any]:
        """Return the fields of the one line that there is."""
        (line,) = self.read_all()
        return line


@contextmanager
def restored_logging() -> Iterator[Configure]:
    """Yield the function that configures logs as a daemon does; restore everything at the end."""
    root, ours = logging.getLogger(), logging.getLogger("pratique")
    before = (root.handlers[:], root.level, ours.level)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    try:
        yield configure
    finally:
        for handler in set(root.handlers) - set(before[0]):
            handler.close()
        root.handlers[:], level, our_level = before
        root.setLevel(level)
        ours.setLevel(our_level)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        logging.raiseExceptions = True
        logging.captureWarnings(capture=False)
        for name in DIVERTED:
            logging.getLogger(name).filters.clear()
