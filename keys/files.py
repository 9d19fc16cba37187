"""Write private files so that a crash leaves the old file or the new one, each complete."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from keys.permissions import OWNER_FILE

DRAFT_BYTES = 8
"""Random bytes in the name of a draft: nobody can guess it and create that file first."""


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file's content atomically; the bytes are on disk when this returns.

    Raises OSError if they cannot be written; the old file is then unchanged.
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
    """Create a file and write it to disk. Raises OSError if the path exists already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, OWNER_FILE), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def sync_directory(path: Path) -> None:
    """Write a directory's list of names to disk, so that new names survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
