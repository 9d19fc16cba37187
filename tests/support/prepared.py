"""Keep the folder that a step of preparation leaves, for tests that do the same step again.

A kept folder never changes: every user gets a copy. While a test has patched something, nothing is
kept and nothing kept is used, because the same step could then have another result.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

Look = Mapping[str, tuple[int, int]]
PreparationResult = tuple[bytes, ...]
"""The byte strings that a step of preparation returns; most steps return none."""


@dataclass(frozen=True)
class State:
    """The steps that were done so far, and how the folder looked then."""

    works: tuple[str, ...]
    look: Look


@dataclass(frozen=True)
class Kept:
    """The result of a step: a folder, the time on the clock, and what it returned."""

    folder: Path
    now: datetime
    result: PreparationResult


class Prepared:
    """The results kept in this process. They are gone when the process ends."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], Kept] = {}
        self._patches: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def usable(self) -> bool:
        """Whether this process keeps results, and no test has patched anything at present."""
        return self._folder is not None and not self._patches

    def begin(self, within: str | None = None) -> None:
        """Keep folders from now on. Patches are watched, so that no kept folder depends on one."""
        self._folder = tempfile.TemporaryDirectory(prefix="prepared-", dir=within)
        _watch(self._patches)

    def find(self, works: tuple[str, ...]) -> Kept | None:
        """Return the result of this sequence of steps, if it is kept."""
        return self._kept.get(works)

    def keep(
        self, works: tuple[str, ...], folder: Path, now: datetime, result: PreparationResult
    ) -> None:
        """Keep the result of this sequence of steps, with a copy of the folder."""
        assert self._folder is not None
        copy = Path(self._folder.name) / str(len(self._kept))
        shutil.copytree(folder, copy, symlinks=True)
        self._kept[works] = Kept(copy, now, result)


PREPARED = Prepared()


def put(kept: Kept, folder: Path) -> None:
    """Replace a folder by a copy of the kept one."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(kept.folder, folder, symlinks=True)


def look(folder: Path) -> Look:
    """Return time and size of every file below a folder, without reading the files."""
    seen = {}
    for folder_path, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(f"{folder_path}/{name}")
            regular = stat.S_ISREG(status.st_mode)
            seen[f"{folder_path[len(str(folder)) :]}/{name}"] = (
                status.st_mtime_ns if regular else 0,
                status.st_size,
            )
    return seen


def _watch(patches: set[int]) -> None:
    set_attribute, undo = pytest.MonkeyPatch.setattr, pytest.MonkeyPatch.undo
    add: Callable[[int], None] = patches.add

    def patched(self: pytest.MonkeyPatch, *given: Any, **named: Any) -> None:
        add(id(self))
        set_attribute(self, *given, **named)

    def undone(self: pytest.MonkeyPatch) -> None:
        patches.discard(id(self))
        undo(self)

    pytest.MonkeyPatch.setattr = patched  # type: ignore[method-assign]
    pytest.MonkeyPatch.undo = undone  # type: ignore[method-assign]
