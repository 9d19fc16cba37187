"""Waits for what another thread or process does a moment later."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

WAIT_SECONDS = 30.0
PAUSE_SECONDS = 0.02


def wait_until(
    condition: Callable[[], Value],
    seconds: float = WAIT_SECONDS,
    details: Callable[[], object] = lambda: "the condition was not true in time",
) -> Value:
    """Return the first true value of `condition`; fails with `details` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, details()
        time.sleep(PAUSE_SECONDS)
    return value
