"""Logging as the daemons set it up, put back afterwards."""

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from governance.service.logs import DIVERTED, configure

Configure = Callable[..., logging.Handler]


@pytest.fixture
def configured() -> Iterator[Configure]:
    """Configure logs as a daemon does; everything is as before when the test ends."""
    root, ours = logging.getLogger(), logging.getLogger("pratique")
    before = (root.handlers[:], root.level, ours.level)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield configure
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.raiseExceptions = True
    logging.captureWarnings(capture=False)
    for name in DIVERTED:
        logging.getLogger(name).filters.clear()


class Lines(io.StringIO):
    """What was logged."""

    def read_all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def only(self) -> dict[str, Any]:
        (line,) = self.read_all()
        return line


@pytest.fixture
def lines(configured: Configure) -> Lines:
    stream = Lines()
    configured(stream=stream)
    return stream
