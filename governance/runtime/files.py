"""Files that are either the old ones or the new ones, and one writer at a time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from governance.errors import DocumentFault
from keys.files import replace_private

PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 0.02


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file by these bytes, on disk when this returns; never by a part of them.

    Raises DocumentFault where the file system does not take them; the old file then stands.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_private(path, data)
    except OSError as error:
        raise DocumentFault(
            f"The file {path} cannot be written",
            why=error.strerror or str(error),
            fix="free space on the disk or correct the permissions, and try again",
        ) from None


@contextmanager
def one_writer(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, among threads and processes; the kernel frees it on any death.

    Raises DocumentFault where another writer holds it for longer than 20 s.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("ab") as lock:
        if not locked_within(lock.fileno(), PATIENCE_SECONDS):
            raise DocumentFault(
                f"The folder {directory} is being written by another process",
                fix="wait until it has finished, or end it",
            )
        yield


def locked_within(handle: int, seconds: float) -> bool:
    """Take the lock of an open file within `seconds`; return whether it was taken."""
    deadline = time.monotonic() + seconds
    while not locked(handle):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def locked(handle: int) -> bool:
    """Take the lock of an open file, if nobody has it; returns whether it was taken."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
