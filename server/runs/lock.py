"""Who carries a run: the server app holds a lock on its file for as long as it lives.

The kernel lets go of it when the process ends, however it ends; so the daemon sees at once that a
run lost its carrier, and two never carry one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from governance.runtime.files import locked, locked_within
from server.errors import OperationFault
from server.home import CoordinatorHome

PATIENCE_SECONDS = 5.0
"""An attempt that was just killed lets go within this time, and so does a daemon that looks."""


@contextmanager
def carried_alone(home: CoordinatorHome, run_id: str) -> Iterator[None]:
    """Hold the run's lock. Raises OperationFault where another process has it and keeps it."""
    with _lock_file(home, run_id).open("a") as lock:
        if not locked_within(lock.fileno(), PATIENCE_SECONDS):
            raise OperationFault(
                f"The run {run_id} is being carried by another process",
                why="it holds the run's lock",
                fix="nothing to do: that one carries it",
            )
        yield


def is_carried(home: CoordinatorHome, run_id: str) -> bool:
    """Return whether a process that carries the run is alive."""
    with _lock_file(home, run_id).open("a") as lock:
        return not locked(lock.fileno())


def _lock_file(home: CoordinatorHome, run_id: str) -> Path:
    folder = home.path / "runs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{run_id}.lock"
