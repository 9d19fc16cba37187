"""Log files of limited size: ours rotates and is reopened on request; Flower's is truncated.

No error here stops a daemon: a line that cannot be written is lost and counted.
"""

import logging
import os
import shutil
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

LARGEST = 10 * 2**20
"""Bytes in one file of our own log."""
KEPT = 5
"""Number of older files beside it; `NAME.1` is the newest of them."""
FOREIGN_LARGEST, FOREIGN_KEPT = 5 * 2**20, 2
"""The same for files that other programs write."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class LogFile(RotatingFileHandler):
    """A log file for its owner only, never larger than `largest` bytes, with `kept` older ones."""

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        """Open the file; raises OSError if it cannot be written."""
        self.lost = 0
        self._stale = False
        super().__init__(path, maxBytes=largest, backupCount=kept, encoding="utf-8")

    def reopen(self) -> None:
        """Reopen the file before the next line, for example after logrotate has moved it.

        It uses no lock, because a signal handler may call it in the middle of a line.
        """
        self._stale = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; one that cannot be written is lost."""
        if self._stale:
            self._stale = False
            self._close_stream()
        super().emit(record)

    def _close_stream(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None  # the next line opens it

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 (the base class names it)
        """Return whether the file has no room for this line."""
        if self.stream is None:
            self.stream = self._open()
        size = os.fstat(self.stream.fileno()).st_size
        line = self.format(record).encode("utf-8", "replace")
        return size > 0 and size + len(line) + 1 > self.maxBytes

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 (the base class)
        """Count a lost line. The base class would print the record and its arguments."""
        self.lost += 1

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, _FLAGS, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab", buffering=0), "utf-8", write_through=True)


def cut_foreign(path: Path, largest: int = FOREIGN_LARGEST, kept: int = FOREIGN_KEPT) -> bool:
    """Truncate a large file that another program appends to; return whether this was done.

    Its end is kept as `NAME.1`. The writer keeps its descriptor, opened for appending, and goes
    on in the empty file; what it writes between the copy and the truncation is lost.
    """
    try:
        if path.stat().st_size <= largest:
            return False
        _shift(path, kept)
        _copy_end(path, path.with_name(f"{path.name}.1"), largest)
        os.truncate(path, 0)
    except OSError:
        return False  # it is tried again at the next check
    return True


def _shift(path: Path, kept: int) -> None:
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))


def _copy_end(path: Path, copy: Path, largest: int) -> None:
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with path.open("rb") as written, os.fdopen(descriptor, "wb") as copied:
        written.seek(max(0, path.stat().st_size - largest))
        shutil.copyfileobj(written, copied)
