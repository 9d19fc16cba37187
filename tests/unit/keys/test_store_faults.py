import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keys import files
from keys import store as store_module
from keys.errors import KeyFault
from keys.store import HEADER_BYTES, HEADER_NAME, KeyStore
from tests.support.keystore import PASSPHRASE, fast_store, leftovers, reopen

# changed on disk


def test_swapped_names_are_noticed(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"one")
    store.put("log", b"other")
    one, other, third = (directory / f"{name}.sealed" for name in ("identity", "log", "third"))
    one.rename(third)
    other.rename(one)
    third.rename(other)
    for name in ("identity", "log"):
        with pytest.raises(KeyFault, match="another name"):
            store.get(name)


def test_a_renamed_secret_is_noticed(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    (directory / "identity.sealed").rename(directory / "other.sealed")
    with pytest.raises(KeyFault, match="cannot be opened"):
        store.get("other")


def test_every_flipped_byte_of_a_secret_is_noticed(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    file = directory / "identity.sealed"
    whole = file.read_bytes()
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(KeyFault, match="cannot be opened"):
            store.get("identity")
    file.write_bytes(whole)
    assert store.get("identity") == b"secret"


def test_every_flipped_byte_of_the_header_is_noticed(directory: Path, store: KeyStore) -> None:
    file = directory / HEADER_NAME
    whole = file.read_bytes()
    for position in range(HEADER_BYTES):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(KeyFault):
            reopen(directory)
    file.write_bytes(whole)
    reopen(directory)


@pytest.mark.parametrize("length", [0, 1, len(store_module.FORMAT), HEADER_BYTES - 1])
def test_a_cut_header_is_noticed_before_the_passphrase_is_tried(
    directory: Path, store: KeyStore, length: int
) -> None:
    file = directory / HEADER_NAME
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(KeyFault, match="no key store that this version can read"):
        reopen(directory)


def test_a_header_of_a_newer_format_says_so(directory: Path, store: KeyStore) -> None:
    file = directory / HEADER_NAME
    file.write_bytes(file.read_bytes().replace(b"/v1", b"/v2"))
    with pytest.raises(KeyFault, match="newer format"):
        reopen(directory)


@pytest.mark.parametrize("power", [0, 21, 40, 255])
def test_a_header_cannot_request_all_the_memory(
    directory: Path, store: KeyStore, power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(passphrase: bytes, start: bytes) -> bytes:
        raise AssertionError("derived with an unchecked cost")

    file = directory / HEADER_NAME
    whole = file.read_bytes()
    at = len(store_module.FORMAT)
    file.write_bytes(whole[:at] + bytes([power]) + whole[at + 1 :])
    monkeypatch.setattr(store_module, "_stretch", unreachable)
    with pytest.raises(KeyFault, match="damaged"):
        reopen(directory)


def test_an_oversized_file_is_not_read_completely(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    with (directory / "identity.sealed").open("r+b") as opened:
        opened.truncate(2**40)
    with pytest.raises(KeyFault, match="cannot be opened"):
        store.get("identity")


@pytest.mark.parametrize("missing", ["directory", "header"])
def test_missing_files_give_a_clear_error(directory: Path, missing: str) -> None:
    if missing == "header":
        directory.mkdir(mode=0o700)
    with pytest.raises(KeyFault, match="no key store to open"):
        reopen(directory)


# crashes


KILLED_AT = {
    "write": "files.write_private = lambda draft, data: (draft.write_bytes(data[:9]), die())",
    "file sync": "os.fsync = lambda descriptor: die()",
    "rename": "files.Path.replace = lambda draft, target: die()",
    "directory sync": "files.sync_directory = lambda path: die()",
}
CRASH = """
import os, signal, sys
from pathlib import Path
from keys import files, store
def die(): os.kill(os.getpid(), signal.SIGKILL)
kept = store.KeyStore.open(Path(sys.argv[1]), sys.argv[2].encode())
{fault}
kept.put("run", b"second")
"""


@pytest.mark.parametrize("step", KILLED_AT)
def test_a_kill_at_any_step_of_a_write_leaves_the_old_or_the_new_secret_complete(
    directory: Path, store: KeyStore, step: str
) -> None:
    store.put("run", b"first")
    script = CRASH.format(fault=KILLED_AT[step])
    command = [sys.executable, "-c", script, str(directory), PASSPHRASE.decode()]
    done = subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    expected = b"second" if step == "directory sync" else b"first"
    assert reopen(directory).get("run") == expected
    assert reopen(directory).names() == ["run"]


@pytest.mark.parametrize("step", ["write", "file sync", "rename"])
def test_deleting_a_secret_removes_its_interrupted_writes(
    directory: Path, store: KeyStore, step: str
) -> None:
    store.put("run", b"first")
    store.put("run-2", b"other")
    script = CRASH.format(fault=KILLED_AT[step])
    command = [sys.executable, "-c", script, str(directory), PASSPHRASE.decode()]
    subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
    (directory / ".run-2.0123.tmp").write_bytes(b"of another secret")
    assert len(leftovers(directory)) == 2
    store.delete("run")
    assert leftovers(directory) == [".run-2.0123.tmp"]
    assert store.names() == ["run-2"]


def test_a_store_whose_creation_was_interrupted_can_be_created_again(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / ".store.0123456789abcdef.tmp").write_bytes(b"half a header")
    fast_store(directory).put("identity", b"secret")
    assert reopen(directory).names() == ["identity"]


@pytest.mark.parametrize("step", ["write_private", "sync_directory"])
def test_a_failing_disk_gives_a_clear_error_and_leaves_no_temporary_file(
    directory: Path, store: KeyStore, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    store.put("run", b"first")
    monkeypatch.setattr(files, step, fail)
    with pytest.raises(KeyFault, match="cannot be written"):
        store.put("run", b"second")
    assert leftovers(directory) == []


def test_the_file_is_on_disk_before_its_name_and_the_name_before_put_returns(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def noted_replace(draft: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    store.put("run", b"secret")
    store.delete("run")
    assert steps == ["file", "rename", "directory", "directory"]
