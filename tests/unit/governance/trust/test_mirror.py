"""Copies of published files: any of them may be lost or damaged without harm."""

from pathlib import Path

import pytest

from governance.trust.mirror import Mirror

FILES = {"metadata/timestamp.json": b"1", "metadata/2.country-DK.json": b"2"}


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "published")


def test_it_holds_exactly_the_files_of_the_last_time(mirror: Mirror) -> None:
    mirror.replace(FILES)
    assert {name: mirror.read(name) for name in FILES} == FILES
    later = {"metadata/timestamp.json": b"3"}
    mirror.replace(later)
    assert mirror.read("metadata/timestamp.json") == b"3"
    assert mirror.read("metadata/2.country-DK.json") is None


def test_copies_are_private_and_unchanged_ones_are_not_written_again(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.replace(FILES)
    file = tmp_path / "published" / "metadata" / "timestamp.json"
    written = file.stat().st_mtime_ns
    mirror.replace(FILES)
    assert file.stat().st_mtime_ns == written
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "draft", "metadata/../../secret"])
def test_no_name_leads_out_of_the_folder(mirror: Mirror, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"!")
    assert mirror.read(name) is None


def test_a_folder_that_cannot_be_written_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "published").write_bytes(b"a file in its place")
    mirror = Mirror(tmp_path / "published")
    mirror.replace(FILES)
    assert mirror.read("metadata/timestamp.json") is None
    assert "copies of documents are not stored" in caplog.text
