"""Checks that only the owner may read or change a file or directory that holds keys."""

import os
import stat
from pathlib import Path

from keys.errors import KeyFault

OWNER_DIRECTORY = 0o700
OWNER_FILE = 0o600


def refuse_if_shared(path: Path, status: os.stat_result) -> None:
    """Raise KeyFault if group or others have any access to the path that `status` describes."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        is_folder = stat.S_ISDIR(status.st_mode)
        wanted = OWNER_DIRECTORY if is_folder else OWNER_FILE
        raise KeyFault(
            f"The {'folder' if is_folder else 'file'} {path} is open to other users",
            why=f"its mode is {mode:04o}, and only its owner may have access to it",
            fix=f"chmod {wanted:04o} {path}",
        )
