from pathlib import Path

import pytest

from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.officer.errors import OfficerFault
from governance.officer.studies import find_study, keep_study, kept_studies
from tests.support.documents import agreement, study

AGREED = agreement()
FIRST, SECOND = study(AGREED), study(AGREED, id="heart-by-age")
BOTH = (FIRST, SECOND)


@pytest.mark.parametrize("proposed", BOTH)
def test_a_study_is_found_by_its_id(proposed: Study) -> None:
    assert find_study(BOTH, proposed.id) == proposed


@pytest.mark.parametrize("proposed", BOTH)
@pytest.mark.parametrize("digits", [8, 20, 64])
def test_a_study_is_found_by_the_beginning_of_its_digest(proposed: Study, digits: int) -> None:
    digest = proposed.digest.removeprefix("sha256:")[:digits]
    assert find_study(BOTH, digest) == proposed
    assert find_study(BOTH, f"sha256:{digest}") == proposed


@pytest.mark.parametrize("name", ["", "sha256:", "heart", FIRST.digest[:14], "0" * 64, "../x"])
def test_an_unknown_study_is_reported_with_the_published_ones(name: str) -> None:
    with pytest.raises(OfficerFault) as fault:
        find_study(BOTH, name)
    assert "heart-by-age, heart-by-sex" in fault.value.why


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(OfficerFault, match="did you mean heart-by-sex"):
        find_study(BOTH, "heart-by-sexx")


def test_an_empty_list_of_studies_is_reported() -> None:
    with pytest.raises(OfficerFault) as fault:
        find_study((), "any")
    assert "none yet" in fault.value.why


def test_two_texts_with_one_id_need_a_digest() -> None:
    changed = study(AGREED, question="How many now?")
    with pytest.raises(OfficerFault, match="fits 2 studies") as fault:
        find_study((FIRST, changed), FIRST.id)
    assert FIRST.digest in fault.value.why
    assert changed.digest in fault.value.why
    assert find_study((FIRST, changed), FIRST.digest) == FIRST
    assert find_study((FIRST, changed), changed.digest) == changed


def test_the_same_text_twice_is_one_study() -> None:
    assert find_study((FIRST, FIRST), FIRST.id) == FIRST


def test_stored_studies_are_read_back_unchanged(tmp_path: Path) -> None:
    for expected in BOTH:
        keep_study(tmp_path / "studies", expected)
    keep_study(tmp_path / "studies", FIRST)
    assert sorted(kept_studies(tmp_path / "studies"), key=lambda s: s.id) == [SECOND, FIRST]


def test_a_new_folder_has_no_stored_studies(tmp_path: Path) -> None:
    assert kept_studies(tmp_path / "none") == []


def test_a_changed_stored_study_is_noticed(tmp_path: Path) -> None:
    keep_study(tmp_path, FIRST)
    [file] = tmp_path.glob("*.json")
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(DocumentFault):
        kept_studies(tmp_path)
