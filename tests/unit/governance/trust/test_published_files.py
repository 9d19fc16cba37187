"""The folder of published files: what is used stays, what is not goes after an hour."""

import os
import time
from pathlib import Path

import pytest

from governance.trust.published_files import UNUSED_SECONDS, PublishedFiles
from tests.support.documents import DAY, FederationDocuments, node_keys


def age(documents: FederationDocuments) -> None:
    """Let every file of the store look as if it was written more than an hour ago."""
    then = time.time() - UNUSED_SECONDS - 60
    for file in (documents.home / "store" / "public").rglob("*"):
        os.utime(file, (then, then))


def test_only_published_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "draft.json").write_bytes(b"{}")
    (tmp_path / "public" / "metadata").mkdir(parents=True)
    (tmp_path / "public" / "metadata" / "timestamp.json").write_bytes(b"{}")
    files = PublishedFiles(tmp_path / "public")
    assert files.read("metadata/timestamp.json") == b"{}"
    for name in ("../draft.json", "draft.json", "metadata/1.root.json", ""):
        assert files.read(name) is None


def test_a_file_that_is_there_is_not_written_again_and_a_damaged_one_is(tmp_path: Path) -> None:
    files, name = PublishedFiles(tmp_path), f"targets/{'0' * 64}.agreement.json"
    files.write_missing({name: b"text"})
    written = (tmp_path / name).stat().st_mtime_ns
    files.write_missing({name: b"text"})
    assert (tmp_path / name).stat().st_mtime_ns == written
    (tmp_path / name).write_bytes(b"")
    files.write_missing({name: b"text"})
    assert files.read(name) == b"text"


@pytest.fixture
def renewed(full: FederationDocuments) -> FederationDocuments:
    """A federation in which DK has signed again with other node keys, after a day."""
    full.now += DAY
    full.folders["DK"].set_node(node_keys("DK", 5))
    full.sign_and_submit("DK")
    return full


def test_files_that_are_not_used_are_removed_after_an_hour(renewed: FederationDocuments) -> None:
    before = renewed.snapshot_of_store()
    renewed.store.remove_unused()
    assert renewed.snapshot_of_store() == before  # a reader may have begun with them
    age(renewed)
    renewed.store.remove_unused()
    left = renewed.snapshot_of_store()
    assert "metadata/1.country-DK.json" in before.keys() - left.keys()
    assert sum("country-DK/" in name for name in before) == 2
    assert sum("country-DK/" in name for name in left) == 1
    assert "metadata/1.root.json" in left
    assert not renewed.view().absent
    age(renewed)
    renewed.sign_and_submit("DK")  # the state is whole, and goes on
    assert renewed.view().versions.countries["DK"] == 3


def test_a_file_that_was_removed_is_written_again_when_it_is_used_again(
    renewed: FederationDocuments,
) -> None:
    age(renewed)
    renewed.store.remove_unused()
    renewed.folders["DK"].set_node(node_keys("DK"))
    renewed.sign_and_submit("DK")
    assert renewed.view().node_keys("DK") == node_keys("DK")
