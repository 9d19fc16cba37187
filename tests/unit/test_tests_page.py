"""`tests/README.md` names every folder, helper and marker of the tests, and nothing else."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGE = (TESTS / "README.md").read_text(encoding="utf-8")


def test_every_folder_is_named() -> None:
    folders = {
        path.name
        for path in TESTS.iterdir()
        if path.is_dir() and any(path.rglob("*.py")) and path.name != "__pycache__"
    }
    assert set(re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE)) == folders


def test_every_helper_is_named_and_exists() -> None:
    helpers = {path.name for path in (TESTS / "support").glob("*.py")} - {"__init__.py"}
    support, fuzzing = PAGE.split("## Fuzzing")
    named = set(re.findall(r"`(?:support/)?(\w+\.py)`", support))
    targets = {path.name for path in (TESTS / "fuzz").glob("*_targets.py")}
    assert set(re.findall(r"`(\w+_targets\.py)`", fuzzing)) == targets
    assert helpers <= named
    assert {name for name in named if not name.startswith("...")} <= helpers | {"..._machine.py"}


def test_every_class_named_is_in_its_helper() -> None:
    for names, helper in re.findall(r"((?:`\w+`(?:, )?)+) in `(support/\w+\.py)`", PAGE):
        text = (TESTS / helper).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"class {name}" in text, f"{name} in {helper}"


def test_every_path_exists() -> None:
    for path in re.findall(r"(?:`| )((?:tests|client)/[\w/]+\.py)", PAGE):
        assert (ROOT / path).is_file(), path


def test_markers_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = {m.split(":")[0] for m in project["tool"]["pytest"]["ini_options"]["markers"]}
    section = PAGE.split("## Markers")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == declared
