"""Atomic file writes, and a lock that admits one writer at a time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from governance.errors import FileFault
from keys.errors import reason_of
from keys.files import replace_private

PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 0.02


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file's content atomically; the bytes are on disk when this returns.

    Raises FileFault if they cannot be written; the old file is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_private(path, data)
    except OSError as error:
        raise FileFault(
            f"The file {path} cannot be written",
            why=reason_of(error),
            fix="free space on the disk or correct the permissions, and try again",
        ) from None


@contextmanager
def one_writer(directory: Path) -> Iterator[None]:
    """Hold the directory's lock against other threads and processes.

    The kernel frees it if the process dies. Raises FileFault if another writer holds it for longer
    than 20 s.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("ab") as lock:
        if not locked_within(lock.fileno(), PATIENCE_SECONDS):
            raise FileFault(
                f"The folder {directory} is being written by another process",
                fix="wait until it has finished, or end it",
            )
        yield


def locked_within(handle: int, seconds: float) -> bool:
    """Try for `seconds` to lock an open file; return whether this succeeded."""
    deadline = time.monotonic() + seconds
    while not locked(handle):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def locked(handle: int) -> bool:
    """Lock an open file if it is not locked; return whether this succeeded."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
