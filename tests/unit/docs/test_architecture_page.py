"""Names in `docs/architecture.md` exist, and the page names every folder of each package."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = ("keys", "protocols", "governance", "client", "server")
DOTTED = re.compile(rf"`((?:{'|'.join(ROOMS)})(?:\.\w+)+)`")
FILE = re.compile(r"`([a-z_]+/[\w/.]*)`")
ROW = re.compile(r"^\| ((?:`[\w/]+`(?:, )?)+) \|", re.MULTILINE)
LONGEST_PAGE = 300
NAMES = sorted(set(DOTTED.findall(PAGE)))


def importable(name: str) -> tuple[ModuleType, list[str]]:
    """Return the module that a dotted name begins with, and the attributes that follow."""
    parts = name.split(".")
    length = max(
        length
        for length in range(1, len(parts) + 1)
        if ROOT.joinpath(*parts[:length]).is_dir()
        or ROOT.joinpath(*parts[:length]).with_suffix(".py").is_file()
    )
    return importlib.import_module(".".join(parts[:length])), parts[length:]


def rows() -> Iterator[str]:
    """Yield each module of the tables, as a path without its ending."""
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        room, _, text = part.partition("\n")
        for row in ROW.findall(text.split("\n## ")[0]):
            yield from (f"{room}/{module}" for module in re.findall(r"`([\w/]+)`", row))


@pytest.mark.parametrize("name", NAMES)
def test_every_dotted_name_exists(name: str) -> None:
    module, attributes = importable(name)
    value: object = module
    for attribute in attributes:
        value = getattr(value, attribute)
    assert callable(value) or isinstance(value, ModuleType)


def test_each_life_cycle_names_its_functions() -> None:
    lives = [part for part in PAGE.split("\n## ") if part.startswith("The life of ")]
    assert [life.partition("\n")[0].rpartition(" ")[2] for life in lives] == [
        "contribution",
        "study",
        "permit",
        "entry",
    ]
    for life in lives:
        steps = re.split(r"\n\d+\. ", life)[1:]
        assert len(steps) >= 6
        assert sum(1 for step in steps if DOTTED.search(step)) >= len(steps) - 1


def test_every_module_in_the_tables_exists() -> None:
    named = list(rows())
    assert len(named) > 150
    for module in named:
        assert (ROOT / f"{module}.py").is_file() or (ROOT / module).is_dir(), module
    assert len(named) == len(set(named))


def test_every_folder_of_a_room_is_in_the_tables() -> None:
    inits = [path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")]
    folders = {folder.relative_to(ROOT).as_posix() for folder in inits} - set(ROOMS)
    named = {module.rpartition("/")[0] for module in rows()} | set(rows())
    assert folders <= named


def test_every_file_exists() -> None:
    for name in FILE.findall(PAGE):
        base = ROOT if (ROOT / name.split("/")[0]).is_dir() else None
        if base is not None:
            assert (base / name).exists(), name


def test_it_stays_short() -> None:
    assert len(PAGE.splitlines()) <= LONGEST_PAGE
