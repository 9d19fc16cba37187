"""The folders of the three programs: where they are, and how `init` makes one.

A folder is made in a draft inside it, and its contents are moved to their places at the end, the
settings last. If `init` fails, the folder is as it was before. If it is killed, the next `init`
removes what is left: a folder with a draft and without settings was never in use.
"""

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from governance.runtime.local_rpc import MAX_PATH
from keys.errors import PratiqueError, reason_of
from keys.files import sync_directory, write_private
from keys.permissions import OWNER_DIRECTORY, refuse_if_shared

DRAFT = ".unfinished"
MOVING = ".moving"
"""In the draft: the names of what is being moved out of it."""


class HomeFault(PratiqueError):
    """A folder cannot be used, or cannot be made."""


def expanded(path: Path) -> Path:
    """Return a path with `~` replaced: a service's settings are not read by a shell, which does it.

    Raises HomeFault if nobody knows this user's home.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise HomeFault(
            f"The path {path} cannot be used",
            why="it begins with ~, the home of a user, and HOME is not set or there is no such "
            "user on this machine",
            fix="set HOME, or name a folder without ~ (--home, or PRATIQUE_HOME)",
        ) from None


def absolute(path: Path) -> Path:
    """Return the absolute path without links and `~`. Raises HomeFault if it cannot be stored."""
    try:
        found = expanded(path).resolve()
        os.fspath(found).encode()
    except UnicodeEncodeError:
        raise HomeFault(
            f"The path {os.fsencode(found)!r} cannot be used",
            why="it contains bytes that are not UTF-8, and settings and documents are UTF-8 text",
            fix="rename this file or folder (`convmv` renames many), or copy it elsewhere",
        ) from None
    except RuntimeError as error:  # a loop of links
        raise HomeFault(
            f"The path {path} cannot be used", why=str(error), fix="correct the link"
        ) from None
    return found


def require_room_for_socket(home: Path, socket: Path) -> None:
    """Raise HomeFault if the daemon's socket below `home` would have too long a name."""
    excess = len(os.fsencode(socket)) - MAX_PATH
    if excess > 0:
        length = len(os.fsencode(home))
        raise HomeFault(
            f"The path {home} is too long for a home",
            why=f"it has {length} bytes, and with {length - excess} or fewer the system allows the "
            "daemon's local socket in it",
            fix="name a folder with a shorter path with --home",
        )


@contextmanager
def made_whole(home: Path, settings: str) -> Iterator[Path]:
    """Yield a folder to make a home in; the home gets its contents if the block succeeds.

    `settings` is the name of the file that is moved last: without it there is no home. The caller
    has checked that `home` has none. Raises HomeFault, OSError; then `home` is as before.
    """
    existed = home.exists()
    try:
        with _draft_in(home, settings) as draft:
            yield draft
            _move_out(draft, home, settings)
    except BaseException as error:
        if not existed:
            with suppress(OSError):
                home.rmdir()  # if it is empty
        if isinstance(error, OSError):
            raise _not_made(home, error) from error
        raise


def is_unfinished(home: Path) -> bool:
    """Whether an `init` that was killed left something here, which the next one removes."""
    return (home / DRAFT).exists()


@contextmanager
def _draft_in(home: Path, settings: str) -> Iterator[Path]:
    """Make and lock the home; yield its draft, and remove it afterwards."""
    home.mkdir(mode=OWNER_DIRECTORY, parents=True, exist_ok=True)
    with _locked(home):
        draft = home / DRAFT
        _remove(draft, settings)
        _make_private(home)
        draft.mkdir(mode=OWNER_DIRECTORY)
        try:
            yield draft
        finally:
            _remove(draft, settings)
            sync_directory(home)


def _move_out(draft: Path, home: Path, settings: str) -> None:
    names = sorted((entry.name for entry in draft.iterdir()), key=lambda name: name == settings)
    if taken := [name for name in names if (home / name).exists()]:
        raise HomeFault(
            f"The folder {home} contains {taken[0]} already",
            why="it would be replaced",
            fix="name an empty folder with --home, or delete this one if nothing in it is needed",
        )
    write_private(draft / MOVING, json.dumps(names).encode())
    sync_directory(draft)
    for name in names:
        if name == settings:
            sync_directory(home)
        (draft / name).rename(home / name)
    sync_directory(home)


def _remove(draft: Path, settings: str) -> None:
    """Remove a draft, and what was moved out of it unless that is a whole home."""
    names = draft / MOVING
    if names.exists() and (draft / settings).exists():  # the settings would have been the last
        for name in json.loads(names.read_bytes()):
            moved = draft.parent / name
            shutil.rmtree(moved) if moved.is_dir() else moved.unlink(missing_ok=True)
    shutil.rmtree(draft, ignore_errors=True)


def _not_made(home: Path, error: OSError) -> HomeFault:
    where = f" ({error.filename})" if error.filename else ""
    return HomeFault(
        f"The folder {home} cannot be made",
        why=f"{reason_of(error)}{where}",
        fix="free space on the disk and correct the permissions, or name another folder with "
        "--home; nothing was kept",
    )


def _make_private(home: Path) -> None:
    """Raise KeyFault if others may use the folder; close an empty one to them."""
    status = home.stat()
    is_empty = not any(home.iterdir())
    if is_empty and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        home.chmod(OWNER_DIRECTORY)
        status = home.stat()
    refuse_if_shared(home, status)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process."""
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise HomeFault(
            f"The folder {home} is being made by another command",
            fix="wait until it has finished",
        ) from None
    finally:
        os.close(descriptor)
