import shutil
from pathlib import Path

import pytest

from tests.support.officers import Keyboard, Stage, cheap_stores, new_officer, officer_in


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """What an officer has done before a test begins; each test has a copy."""
    folder = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        keyboard = new_officer(tmp_path_factory.mktemp("officer"), patch)
        by_name = {"new": keyboard.kept(folder / "new")}
        by_name["enrolled"] = keyboard.enrol().kept(folder / "enrolled")
        by_name["agreed"] = keyboard.agree().kept(folder / "agreed")
    return by_name


@pytest.fixture
def officer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: dict[str, Stage]) -> Keyboard:
    """An officer of DK who has made a key and nothing else."""
    cheap_stores(monkeypatch)
    shutil.copytree(stages["new"].folder, tmp_path, dirs_exist_ok=True)
    return officer_in(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(officer: Keyboard, stages: dict[str, Stage]) -> Keyboard:
    """An officer who has been admitted."""
    return officer.at(stages["enrolled"])


@pytest.fixture
def agreed(enrolled: Keyboard, stages: dict[str, Stage]) -> Keyboard:
    """An officer of an agreement that is in force."""
    return enrolled.at(stages["agreed"])
