"""Reads a passphrase from a private file, an open file descriptor, or a person.

Never from the command line or the environment, which other processes can read.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from keys.errors import KeyFault
from keys.permissions import refuse_if_shared

PASSPHRASE_LIMIT_BYTES = 1024
GIVEN = 0o440
"""Mode of a secret that an orchestrator gives to one service: nobody may write it."""
ORCHESTRATOR = 0
"""The user (root) by whom a service manager or container runtime puts a secret in place."""
READ_LIMIT_BYTES = PASSPHRASE_LIMIT_BYTES + 3  # a newline, and one byte to notice more


def read_passphrase(
    *, file: Path | None, fd: int | None, prompt: Callable[[str], str] | None, purpose: str
) -> bytes:
    """Return the passphrase for `purpose` (as in "the key store"), without one trailing newline.

    `file` or `fd` is read if given (not both); otherwise `prompt` is called with a question.
    Raises KeyFault if there is none, if it is empty or longer than 1024 bytes, or if others can
    read its file.
    """
    if file is not None and fd is not None:
        raise _cannot_read(purpose, "both a file and a descriptor were named", "name one of them")
    try:
        data = _read(file, fd, prompt, purpose)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error) or "nothing was entered"
        raise _cannot_read(
            purpose, f"reading it failed: {why}", "check the file or descriptor"
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
            "there is no terminal to type it at",
            "give --passphrase-file with a file that holds it, or --passphrase-fd",
        )
    return prompt(f"Passphrase for {purpose}: ").encode(errors="surrogateescape")


def _read_file(path: Path) -> bytes:
    with path.open("rb") as opened:
        status = os.fstat(opened.fileno())
        if not _is_given(path, status):
            _refuse_if_shared(path, status)
        return opened.read(READ_LIMIT_BYTES)


def _refuse_if_shared(path: Path, status: os.stat_result) -> None:
    """Raise KeyFault if others can read the file; the fix is one that this user can make."""
    try:
        refuse_if_shared(path, status)
    except KeyFault as fault:
        if status.st_uid == os.geteuid() and os.access(path, os.W_OK):
            raise
        raise KeyFault(
            fault.what,
            why=f"{fault.why}, or the service to which root gives it with the mode 0440",
            fix="set the mode 0400 or 0440 where this secret is defined (`mode` in Docker, "
            "`defaultMode` in Kubernetes)",
        ) from None


def _is_given(path: Path, status: os.stat_result) -> bool:
    """Return whether systemd, Kubernetes or Docker gave this file to this service.

    Its mode is 0440: nobody may write it, and its readers are the service's group (or one user, if
    the file has an access list, whose mask the mode then shows). Only root can have put it there:
    its folder is root's, and no other user may replace anything in it. A file in a person's own
    folder is refused with this mode as with any other that others can read.
    """
    if stat.S_IMODE(status.st_mode) != GIVEN or status.st_uid not in {ORCHESTRATOR, os.geteuid()}:
        return False
    folder = path.resolve().parent.stat()
    replaceable = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder.st_uid == ORCHESTRATOR and not replaceable


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
