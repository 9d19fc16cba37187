"""The lock of a run: the server app that executes the run holds it until it ends.

The kernel releases it when the process ends, in whatever way. So the daemon sees at once that a
run's process has ended, and two processes never execute one run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from governance.runtime.files import locked, locked_within
from server.errors import CoordinatorFault
from server.home import CoordinatorHome

PATIENCE_SECONDS = 5.0
"""How long to wait for the lock: a killed attempt, or the daemon that only tests it, releases it
within this time."""


@contextmanager
def lock_run(home: CoordinatorHome, run_id: str) -> Iterator[None]:
    """Hold the run's lock. Raises CoordinatorFault if another process keeps it."""
    with _lock_file(home, run_id).open("a") as lock:
        if not locked_within(lock.fileno(), PATIENCE_SECONDS):
            raise CoordinatorFault(
                f"Another process executes the run {run_id}",
                why="it holds the run's lock",
                fix="nothing to do: that process continues the run",
            )
        yield


def is_run_locked(home: CoordinatorHome, run_id: str) -> bool:
    """Return whether a process that executes the run is alive."""
    with _lock_file(home, run_id).open("a") as lock:
        return not locked(lock.fileno())


def _lock_file(home: CoordinatorHome, run_id: str) -> Path:
    folder = home.path / "runs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{run_id}.lock"
