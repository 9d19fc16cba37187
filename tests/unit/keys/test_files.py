"""A private file is for its owner only, complete, and never written through a link."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from keys import files
from keys.files import replace_private, write_private


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_file_is_replaced_whole_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "x"
    replace_private(path, b"one")
    replace_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_file_and_name_are_on_disk_when_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
    )
    replace_private(tmp_path / "x", b"one")
    draft, folder = synced
    assert draft.startswith(f"{tmp_path}/.x.")
    assert folder == str(tmp_path)


@pytest.mark.parametrize("step", ["write_private", "sync"])
def test_a_failing_disk_leaves_the_old_file_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    replace_private(tmp_path / "x", b"old")
    monkeypatch.setattr(*((os, "fsync") if step == "sync" else (files, step)), full)
    with pytest.raises(OSError, match="No space left"):
        replace_private(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_a_temporary_file_s_name_cannot_be_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shared folder somebody could place a link there, which would receive the secret."""
    drafts: list[str] = []

    def record_write(draft: Path, data: bytes) -> None:
        drafts.append(draft.name)
        write_private(draft, data)

    monkeypatch.setattr(files, "write_private", record_write)
    replace_private(tmp_path / "x", b"one")
    replace_private(tmp_path / "x", b"two")
    assert len(set(drafts)) == 2
    assert all(len(name) == len(".x..tmp") + 16 for name in drafts)


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_new_file_never_overwrites_an_existing_one(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_bytes(b"")
    trap = tmp_path / "key.pem"
    trap.symlink_to(tmp_path / target)
    with pytest.raises(FileExistsError):
        write_private(trap, b"secret")
    assert (tmp_path / "there").read_bytes() == b""
    assert not (tmp_path / "nowhere").exists()
