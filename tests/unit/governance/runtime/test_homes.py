"""A home is made whole or not at all, and paths are the same for all three programs."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.runtime import homes
from governance.runtime.homes import (
    DRAFT,
    HomeFault,
    absolute,
    expanded,
    is_unfinished,
    made_whole,
    require_room_for_socket,
)
from governance.runtime.local_rpc import MAX_PATH
from keys.errors import KeyFault

SETTINGS = "settings.yaml"
NAMES = ["keys", "state.db", SETTINGS, "officer"]


class Killed(BaseException):
    """Simulates a kill: nothing after it runs, not even what cleans up."""


def fill(draft: Path) -> None:
    (draft / "keys").mkdir()
    (draft / "keys" / "secret").write_text("s")
    for name in ("state.db", SETTINGS):
        (draft / name).write_text(name)
    (draft / "officer").mkdir()


def make(home: Path) -> None:
    with made_whole(home, SETTINGS) as draft:
        fill(draft)


def fail_to_make(home: Path, fault: BaseException) -> None:
    with made_whole(home, SETTINGS) as draft:
        fill(draft)
        raise fault


def contents(home: Path) -> set[str]:
    return {entry.name for entry in home.iterdir()}


@pytest.mark.parametrize("exists", [False, True])
def test_a_home_gets_all_its_contents(tmp_path: Path, exists: bool) -> None:
    home = tmp_path / "a" / "home"
    if exists:
        home.mkdir(parents=True, mode=0o755)
    make(home)
    assert contents(home) == set(NAMES)
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("fault", [KeyFault("no"), KeyboardInterrupt()])
def test_a_fault_leaves_the_folder_as_it_was(
    tmp_path: Path, exists: bool, fault: BaseException
) -> None:
    home = tmp_path / "home"
    if exists:
        home.mkdir(mode=0o700)
        (home / "lost+found").mkdir()
    with pytest.raises(type(fault)):
        fail_to_make(home, fault)
    assert home.exists() == exists
    assert not exists or contents(home) == {"lost+found"}
    make(home)
    assert contents(home) >= set(NAMES)


@pytest.mark.parametrize("renames", range(len(NAMES) + 1))
def test_a_kill_at_any_moment_leaves_a_whole_home_or_one_that_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    home, rename = tmp_path / "home", Path.rename
    done: list[str] = []

    def killed_later(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(target.name)
        return rename(self, target)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Path, "rename", killed_later)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        make(home)
    assert is_unfinished(home)
    if renames == len(NAMES):  # all was moved, and only the empty draft is left
        assert done[-1] == SETTINGS
        assert contents(home) == {*NAMES, DRAFT}
        return
    assert not (home / SETTINGS).exists()
    make(home)
    assert contents(home) == set(NAMES)
    assert (home / "keys" / "secret").read_text() == "s"


def test_a_whole_home_is_not_removed_with_a_draft_that_was_left(tmp_path: Path) -> None:
    make(tmp_path / "home")
    draft = tmp_path / "home" / DRAFT
    draft.mkdir()
    (draft / ".moving").write_text('["keys", "state.db"]')
    homes._remove(draft, SETTINGS)
    assert contents(tmp_path / "home") == set(NAMES)


def test_nothing_is_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "keys").write_text("mine")
    with pytest.raises(HomeFault, match="contains keys already"):
        make(home)
    assert (home / "keys").read_text() == "mine"
    assert contents(home) == {"keys"}


def test_a_folder_that_others_use_is_neither_closed_to_them_nor_used(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "file").touch()
    with pytest.raises(KeyFault, match="open to other users"):
        make(shared)
    assert shared.stat().st_mode & 0o777 == 0o777
    assert contents(shared) == {"file"}


def test_two_inits_at_once_are_refused(tmp_path: Path) -> None:
    with made_whole(tmp_path / "home", SETTINGS) as draft:
        fill(draft)
        with pytest.raises(HomeFault, match="another command"):
            make(tmp_path / "home")
    assert contents(tmp_path / "home") == set(NAMES)


def test_a_full_disk_is_said_in_plain_words_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HomeFault, match="cannot be made") as caught:
        fail_to_make(tmp_path / "home", OSError(28, "No space left on device", "state.db"))
    assert "No space left on device (state.db)" in caught.value.why
    assert not (tmp_path / "home").exists()


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeFault, match="cannot be made"):
        make(tmp_path / "file" / "home")


def test_a_tilde_is_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded(Path("~/off")) == absolute(Path("~/off")) == tmp_path / "off"


@pytest.mark.parametrize("path", ["~/x", "~nobody-has-this-name/x"])
def test_an_unknown_home_is_said(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(HomeFault, match="cannot be used") as caught:
        absolute(Path(path))
    assert "HOME" in caught.value.why
    assert "--home" in caught.value.fix


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"B\xfcro")
    with pytest.raises(HomeFault, match="cannot be used") as caught:
        absolute(folder / "node")
    assert "not UTF-8" in caught.value.why
    str(caught.value).encode()


def test_a_loop_of_links_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(HomeFault, match="cannot be used"):
        absolute(tmp_path / "a" / "b")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_text_is_a_path_or_a_plain_refusal(text: str) -> None:
    with suppress(HomeFault):
        assert absolute(Path(text)).is_absolute()
        return
    assert text.startswith("~")


def test_the_longest_path_with_room_for_the_socket() -> None:
    room = MAX_PATH - len("//run/node.sock")
    require_room_for_socket(Path("/" + "n" * room), Path("/" + "n" * room + "/run/node.sock"))
    long = Path("/" + "n" * (room + 1))
    with pytest.raises(HomeFault, match="too long") as caught:
        require_room_for_socket(long, long / "run" / "node.sock")
    assert f"it has {room + 2} bytes, and with {room + 1} or fewer" in caught.value.why
