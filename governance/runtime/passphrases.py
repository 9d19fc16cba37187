"""Ask for passphrases at the keyboard: once to open a key store, twice to create one."""

import getpass
import sys
from pathlib import Path

from keys.errors import KeyFault
from keys.passphrase import read_passphrase

PURPOSE = "the key store"


def known_passphrase(file: Path | None, fd: int | None) -> bytes:
    """Return the passphrase of an existing key store. Raises KeyFault."""
    prompt = getpass.getpass if sys.stdin.isatty() else None
    return read_passphrase(file=file, fd=fd, prompt=prompt, purpose=PURPOSE)


def chosen_passphrase(file: Path | None, fd: int | None) -> bytes:
    """Return the passphrase of a new key store; a person types it twice. Raises KeyFault."""
    first = known_passphrase(file, fd)
    if (
        file is None
        and fd is None
        and getpass.getpass("The same passphrase again: ").encode() != first
    ):
        raise KeyFault(
            "The two passphrases differ",
            why="one of them was mistyped",
            fix="run the command again",
        )
    return first
