"""Writes files for their owner only; after a crash the old or the new file is complete."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from keys.permissions import OWNER_FILE

DRAFT_BYTES = 8
"""Random bytes in a temporary file's name, so that nobody can guess it and create it first."""


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file atomically; the new one is on disk when this returns.

    Raises OSError if the file system refuses; the old file then stays.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(DRAFT_BYTES)}.tmp")
    try:
        write_private(draft, data)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file; it is on disk when this returns. Raises OSError if the path exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, OWNER_FILE), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
