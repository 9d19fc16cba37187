"""A result is found by study or folder, and verified with a trusted key."""

from pathlib import Path

import pytest

from governance.results.result import RESULT_FILE
from keys.errors import KeyFault
from server.commands.trusted_key import find_result_folder, trusted_key
from server.errors import CoordinatorFault
from tests.support.documents import raw_key


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A coordinator's folder with one result."""
    folder = tmp_path / "results" / "heart"
    folder.mkdir(parents=True)
    (folder / RESULT_FILE).write_text("{}")
    return folder


def test_a_key_given_by_option_is_the_only_trusted_key(tmp_path: Path) -> None:
    key = raw_key(3).public
    assert trusted_key(tmp_path, key.to_text()) == key
    with pytest.raises(KeyFault):
        trusted_key(tmp_path, "ed25519:nonsense")


def test_without_a_given_key_and_an_agreement_no_key_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorFault) as fault:
        trusted_key(tmp_path, None)
    assert "in the agreement" in fault.value.why
    assert "--key" in fault.value.fix


def test_a_result_is_found_by_its_study_and_by_its_folder(tmp_path: Path, released: Path) -> None:
    assert find_result_folder(tmp_path, "heart") == released
    assert find_result_folder(tmp_path, str(released)) == released


def test_a_missing_result_is_refused_and_the_existing_ones_are_named(
    tmp_path: Path, released: Path
) -> None:
    (tmp_path / "results" / "begun").mkdir()
    with pytest.raises(CoordinatorFault) as fault:
        find_result_folder(tmp_path, "begun")
    assert fault.value.why == "the released results are: heart"
