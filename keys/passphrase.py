"""Where a passphrase comes from: a private file, an open descriptor, or a person. Never the
command line or the environment, which other processes can read.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from keys.errors import KeyFault
from keys.permissions import refuse_if_shared

PASSPHRASE_LIMIT_BYTES = 1024
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Names the folder of a service's credentials (systemd.exec(5))."""
NOT_BY_A_LIST = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
READ_LIMIT_BYTES = PASSPHRASE_LIMIT_BYTES + 3  # a newline, and one byte that says there is more


def read_passphrase(
    *, file: Path | None, fd: int | None, prompt: Callable[[str], str] | None, purpose: str
) -> bytes:
    """Return the passphrase for `purpose` (as in "the key store"), less one trailing newline.

    `file` or `fd` is read when given (not both); otherwise `prompt` is called with a question.
    Raises KeyFault when there is none, it is empty, longer than 1024 bytes, or in a file that
    others can read.
    """
    if file is not None and fd is not None:
        raise _cannot_read(purpose, "both a file and a descriptor were named", "name one of them")
    try:
        data = _read(file, fd, prompt, purpose)
    except (OSError, EOFError) as error:
        raise _cannot_read(
            purpose, f"reading it failed ({error})", "check where it is read from"
        ) from None
    return _checked(data, purpose)


def _read(
    file: Path | None, fd: int | None, prompt: Callable[[str], str] | None, purpose: str
) -> bytes:
    if file is not None:
        return _read_file(file)
    if fd is not None:
        return _read_open(fd)
    if prompt is None:
        raise _cannot_read(
            purpose,
            "nobody is there to type it",
            "give --passphrase-file with a file that holds it, or --passphrase-fd",
        )
    return prompt(f"Passphrase for {purpose}: ").encode(errors="surrogateescape")


def _read_file(path: Path) -> bytes:
    with path.open("rb") as opened:
        status = os.fstat(opened.fileno())
        if not _handed_over(path, status.st_mode):
            refuse_if_shared(path, status)
        return opened.read(READ_LIMIT_BYTES)


def _handed_over(path: Path, mode: int) -> bool:
    """Whether systemd gave this file to this service alone, as a credential.

    It does so by an access list for one user, whose mask stands where the group's rights do.
    """
    folder = os.environ.get(CREDENTIALS)
    return bool(folder) and path.parent == Path(str(folder)) and not mode & NOT_BY_A_LIST


def _read_open(fd: int) -> bytes:
    with os.fdopen(fd, "rb", closefd=False) as opened:
        return opened.read(READ_LIMIT_BYTES)


def _checked(data: bytes, purpose: str) -> bytes:
    newline = b"\r\n" if data.endswith(b"\r\n") else b"\n"
    passphrase = data.removesuffix(newline)
    if not passphrase:
        raise _cannot_read(purpose, "it is empty", "choose a passphrase of several random words")
    if len(passphrase) > PASSPHRASE_LIMIT_BYTES:
        raise _cannot_read(
            purpose, f"it is longer than {PASSPHRASE_LIMIT_BYTES} bytes", "name the right file"
        )
    return passphrase


def _cannot_read(purpose: str, why: str, fix: str) -> KeyFault:
    return KeyFault(f"The passphrase for {purpose} cannot be used", why=why, fix=fix)
