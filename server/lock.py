"""Who carries a run: the server app holds a lock on its file for as long as it lives.

The kernel lets go of it when the process ends, however it ends; so the daemon sees at once that a
run lost its carrier, and two never carry one.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import OperationFault
from server.home import CoordinatorHome

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 5.0
"""An attempt that was just killed lets go within this time, and so does a daemon that looks."""


@contextmanager
def carried_alone(home: CoordinatorHome, run_id: str) -> Iterator[None]:
    """Hold the run's lock. Raises OperationFault where another process has it and keeps it."""
    with _lock_file(home, run_id).open("a") as lock:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _taken(lock.fileno()):
            if time.monotonic() > deadline:
                raise OperationFault(
                    f"The run {run_id} is being carried by another process",
                    why="it holds the run's lock",
                    fix="nothing to do: that one carries it",
                )
            time.sleep(LOOK_SECONDS)
        yield


def is_carried(home: CoordinatorHome, run_id: str) -> bool:
    """Return whether a process that carries the run is alive."""
    with _lock_file(home, run_id).open("a") as lock:
        return not _taken(lock.fileno())


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(home: CoordinatorHome, run_id: str) -> Path:
    folder = home.path / "runs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{run_id}.lock"
