import shutil
from pathlib import Path

import pytest

from tests.support.officers import (
    OfficerCommands,
    OfficerSnapshot,
    new_officer,
    officer_in,
    use_fast_key_stores,
)


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OfficerSnapshot]:
    """What an officer has done before a test begins; each test has a copy."""
    folder = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        officer = new_officer(tmp_path_factory.mktemp("officer"), patch)
        by_name = {"new": officer.save(folder / "new")}
        by_name["enrolled"] = officer.enrol().save(folder / "enrolled")
        by_name["agreed"] = officer.agree().save(folder / "agreed")
    return by_name


@pytest.fixture
def officer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: dict[str, OfficerSnapshot]
) -> OfficerCommands:
    """An officer of DK who has made a key and nothing else."""
    use_fast_key_stores(monkeypatch)
    shutil.copytree(snapshots["new"].folder, tmp_path, dirs_exist_ok=True)
    return officer_in(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(officer: OfficerCommands, snapshots: dict[str, OfficerSnapshot]) -> OfficerCommands:
    """An officer who has been admitted."""
    return officer.restore(snapshots["enrolled"])


@pytest.fixture
def agreed(enrolled: OfficerCommands, snapshots: dict[str, OfficerSnapshot]) -> OfficerCommands:
    """An officer of an agreement that is in force."""
    return enrolled.restore(snapshots["agreed"])
