"""Files for their owner only, written so that a crash leaves the old one or the new one whole."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from keys.permissions import OWNER_FILE

DRAFT_BYTES = 8
"""Of randomness in a draft's name, which nobody can guess and lay something in the way of."""


def replace_private(path: Path, data: bytes) -> None:
    """Replace the file by these bytes, on disk when this returns; never by a part of them.

    Raises OSError where the file system does not take them; the old file then stands.
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
    """Write a new file, on disk when this returns. Raises OSError where anything is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, OWNER_FILE), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
