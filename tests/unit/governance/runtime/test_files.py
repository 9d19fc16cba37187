import os
import threading
import time
from pathlib import Path

import pytest

from governance.errors import DocumentFault
from governance.runtime import files
from governance.runtime.files import one_writer, write_atomic


def test_a_file_is_replaced_completely_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["b.json"]


def test_file_and_folder_are_synced_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def record_sync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", record_sync)
    write_atomic(tmp_path / "a.json", b"x")
    assert len(synced) == 2
    assert synced[0].startswith(f"{tmp_path}/.a.json.")
    assert synced[1] == str(tmp_path)


def test_a_failed_sync_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DocumentFault) as caught:
        write_atomic(path, b"new")
    assert "No space left" in caught.value.why
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_writers_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with one_writer(tmp_path):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 30


def test_a_writer_that_waits_too_long_gives_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.05)
    with (
        one_writer(tmp_path),
        pytest.raises(DocumentFault, match="another process"),
        one_writer(tmp_path),
    ):
        pass


def test_a_fault_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), one_writer(tmp_path):
        raise ValueError("inside")
    with one_writer(tmp_path):
        pass
