from pathlib import Path

import pytest

from tests.support.officers import Keyboard, sit_down


@pytest.fixture
def officer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    """An officer of DK who has made a key and nothing else."""
    return sit_down(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(officer: Keyboard) -> Keyboard:
    """An officer who has been admitted."""
    return officer.enrol()


@pytest.fixture
def agreed(enrolled: Keyboard) -> Keyboard:
    """An officer of an agreement that is in force."""
    return enrolled.agree()
