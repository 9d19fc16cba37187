import shutil
from pathlib import Path

import pytest

from tests.support.officers import Keyboard, Stage, cheap_stores, come_back, sit_down


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """What an officer has done before a test begins; each test has a copy."""
    kept = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        one = sit_down(tmp_path_factory.mktemp("officer"), patch)
        made = {"new": one.kept(kept / "new")}
        made["enrolled"] = one.enrol().kept(kept / "enrolled")
        made["agreed"] = one.agree().kept(kept / "agreed")
    return made


@pytest.fixture
def officer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: dict[str, Stage]) -> Keyboard:
    """An officer of DK who has made a key and nothing else."""
    cheap_stores(monkeypatch)
    shutil.copytree(stages["new"].folder, tmp_path, dirs_exist_ok=True)
    return come_back(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(officer: Keyboard, stages: dict[str, Stage]) -> Keyboard:
    """An officer who has been admitted."""
    return officer.at(stages["enrolled"])


@pytest.fixture
def agreed(enrolled: Keyboard, stages: dict[str, Stage]) -> Keyboard:
    """An officer of an agreement that is in force."""
    return enrolled.at(stages["agreed"])
