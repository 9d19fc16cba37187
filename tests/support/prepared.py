"""Folders as some work leaves them, kept for whoever does the same work from the same state again.

What is kept never changes: every user gets a copy. Nothing is kept, and nothing kept is used, while
a test has patched something: the same work might then come to something else.
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
Words = tuple[bytes, ...]


@dataclass(frozen=True)
class State:
    """Which works led here, and how the folder looked then."""

    works: tuple[str, ...]
    look: Look


@dataclass(frozen=True)
class Kept:
    """What a work came to: a folder, the time on the clock, and what it returned."""

    folder: Path
    now: datetime
    words: Words


class Prepared:
    """What was kept in this process. It is gone when the process ends."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], Kept] = {}
        self._patches: set[int] = set()
        self._place: tempfile.TemporaryDirectory[str] | None = None

    @property
    def usable(self) -> bool:
        """Whether this process keeps anything, and no test has patched anything at present."""
        return self._place is not None and not self._patches

    def begin(self, within: str | None = None) -> None:
        """Keep folders from now on. Patches are watched, so that none is in what is kept."""
        self._place = tempfile.TemporaryDirectory(prefix="prepared-", dir=within)
        _watch(self._patches)

    def find(self, works: tuple[str, ...]) -> Kept | None:
        """Return what this sequence of works came to."""
        return self._kept.get(works)

    def keep(self, works: tuple[str, ...], folder: Path, now: datetime, words: Words) -> None:
        """Keep a copy of the folder."""
        assert self._place is not None
        copy = Path(self._place.name) / str(len(self._kept))
        shutil.copytree(folder, copy, symlinks=True)
        self._kept[works] = Kept(copy, now, words)


PREPARED = Prepared()


def put(kept: Kept, folder: Path) -> None:
    """Let a folder be as it was kept."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(kept.folder, folder, symlinks=True)


def look(folder: Path) -> Look:
    """Return how every file below a folder looks, without reading any."""
    seen = {}
    for place, _, names in os.walk(folder):
        for name in names:
            found = os.lstat(f"{place}/{name}")
            whole = stat.S_ISREG(found.st_mode)
            seen[f"{place[len(str(folder)) :]}/{name}"] = (
                found.st_mtime_ns if whole else 0,
                found.st_size,
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
