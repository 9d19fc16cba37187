import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keys import store as store_module
from keys.errors import KeyFault
from keys.store import HEADER_BYTES, HEADER_NAME, SCRYPT_COST, SECRET_LIMIT_BYTES, KeyStore

CHEAP = 2
PASSPHRASE = b"four random words here"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def store(place: Path) -> KeyStore:
    return KeyStore.create(place, PASSPHRASE, cost=CHEAP)


def reopen(place: Path) -> KeyStore:
    return KeyStore.open(place, PASSPHRASE)


def photograph(place: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns)
        for file in place.iterdir()
    }


def leftovers(place: Path) -> list[str]:
    return [file.name for file in place.iterdir() if file.name.startswith(".")]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# what it keeps


def test_what_was_put_is_got_after_reopening(place: Path, store: KeyStore) -> None:
    store.put("identity", b"\x00secret\xff")
    store.put("log", b"")
    again = reopen(place)
    assert again.get("identity") == b"\x00secret\xff"
    assert again.get("log") == b""
    assert again.names() == ["identity", "log"]


def test_a_second_put_replaces_the_first(place: Path, store: KeyStore) -> None:
    store.put("run", b"first")
    store.put("run", b"second")
    assert reopen(place).get("run") == b"second"
    assert store.names() == ["run"]


def test_a_deleted_secret_is_gone(place: Path, store: KeyStore) -> None:
    store.put("run", b"secret")
    store.put("other", b"kept")
    store.delete("run")
    with pytest.raises(KeyFault, match="no secret named run"):
        store.get("run")
    assert reopen(place).names() == ["other"]


def test_what_is_not_there_cannot_be_got_or_deleted(store: KeyStore) -> None:
    with pytest.raises(KeyFault, match="no secret named missing"):
        store.get("missing")
    with pytest.raises(KeyFault, match="missing cannot be deleted"):
        store.delete("missing")


def test_the_largest_secret_fits_and_one_byte_more_is_refused(store: KeyStore) -> None:
    store.put("large", b"x" * SECRET_LIMIT_BYTES)
    assert store.get("large") == b"x" * SECRET_LIMIT_BYTES
    with pytest.raises(KeyFault, match="too large"):
        store.put("large", b"y" * (SECRET_LIMIT_BYTES + 1))
    assert store.get("large") == b"x" * SECRET_LIMIT_BYTES


def test_nothing_on_disk_shows_a_secret_or_the_passphrase(place: Path, store: KeyStore) -> None:
    store.put("identity", b"a very secret secret")
    held = b"".join(file.read_bytes() for file in place.iterdir())
    assert b"very secret" not in held
    assert PASSPHRASE not in held


def test_two_stores_with_one_passphrase_have_different_keys(tmp_path: Path) -> None:
    one = KeyStore.create(tmp_path / "one", PASSPHRASE, cost=CHEAP)
    other = KeyStore.create(tmp_path / "other", PASSPHRASE, cost=CHEAP)
    one.put("identity", b"secret")
    shutil.copy(tmp_path / "one" / "identity.sealed", tmp_path / "other" / "identity.sealed")
    with pytest.raises(KeyFault, match="another store"):
        other.get("identity")


def test_the_default_cost_is_the_strong_one(place: Path) -> None:
    KeyStore.create(place, PASSPHRASE)
    header = (place / HEADER_NAME).read_bytes()
    assert 1 << header[len(store_module.FORMAT)] == SCRYPT_COST == 2**15


# names


@pytest.mark.parametrize("name", ["a", "0", "run-0f3a", "a" * 100, "result-" + "0f" * 32])
def test_names_that_serve(store: KeyStore, name: str) -> None:
    store.put(name, b"secret")
    assert store.get(name) == b"secret"
    assert store.names() == [name]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../identity",
        "/etc/passwd",
        "a/b",
        "a.b",
        "A",
        "é",
        "a\n",
        "a\0",
        "-a",
        "*",
        "a" * 101,
        "store.header",
    ],
)
def test_names_that_could_reach_elsewhere_are_refused(
    place: Path, store: KeyStore, name: str
) -> None:
    before = photograph(place)
    for act in (store.get, store.delete, lambda name: store.put(name, b"secret")):
        with pytest.raises(KeyFault, match="cannot name a secret"):
            act(name)
    assert photograph(place) == before


# the passphrase


@pytest.mark.parametrize("wrong", [b"", PASSPHRASE + b" ", PASSPHRASE[:-1], b"x" * 2000])
def test_a_wrong_passphrase_is_refused_and_changes_nothing(
    place: Path, store: KeyStore, wrong: bytes
) -> None:
    store.put("identity", b"secret")
    before = photograph(place)
    with pytest.raises(KeyFault, match="passphrase does not open") as caught:
        KeyStore.open(place, wrong)
    assert "nothing was changed" in caught.value.why
    assert photograph(place) == before
    assert reopen(place).get("identity") == b"secret"


def test_an_error_repeats_neither_passphrase(place: Path, store: KeyStore) -> None:
    with pytest.raises(KeyFault) as caught:
        KeyStore.open(place, b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert PASSPHRASE.decode() not in str(caught.value)


# making one


def test_it_is_made_for_its_owner_alone_whatever_the_umask(place: Path) -> None:
    former = os.umask(0)
    try:
        KeyStore.create(place, PASSPHRASE, cost=CHEAP).put("identity", b"secret")
    finally:
        os.umask(former)
    assert mode_of(place) == 0o700
    assert {mode_of(file) for file in place.iterdir()} == {0o600}


def test_a_store_is_never_made_over_another(place: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    before = photograph(place)
    with pytest.raises(KeyFault, match="not empty"):
        KeyStore.create(place, b"another passphrase", cost=CHEAP)
    assert photograph(place) == before


def test_a_store_is_not_made_where_a_lost_header_left_secrets(place: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    (place / HEADER_NAME).unlink()
    with pytest.raises(KeyFault, match="not empty"):
        KeyStore.create(place, PASSPHRASE, cost=CHEAP)


def test_a_store_is_not_made_in_a_directory_open_to_others(place: Path) -> None:
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(KeyFault) as caught:
        KeyStore.create(place, PASSPHRASE, cost=CHEAP)
    assert caught.value.fix == f"chmod 0700 {place}"
    assert list(place.iterdir()) == []


def test_a_store_is_not_made_in_place_of_a_file(place: Path) -> None:
    place.write_bytes(b"something")
    with pytest.raises(KeyFault, match="cannot hold a key store"):
        KeyStore.create(place, PASSPHRASE, cost=CHEAP)
    assert place.read_bytes() == b"something"


@pytest.mark.parametrize("cost", [-2, 0, 1, 3, 2**15 + 1, 2**21])
def test_a_cost_that_scrypt_or_the_format_cannot_take_is_refused(place: Path, cost: int) -> None:
    with pytest.raises(KeyFault, match="scrypt cost"):
        KeyStore.create(place, PASSPHRASE, cost=cost)


# loose permissions


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o701, 0o755])
def test_a_directory_open_to_others_is_refused(place: Path, store: KeyStore, mode: int) -> None:
    place.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        reopen(place)
    assert caught.value.fix == f"chmod 0700 {place}"
    place.chmod(0o700)
    reopen(place)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_files_open_to_others_are_refused(place: Path, store: KeyStore, mode: int) -> None:
    store.put("identity", b"secret")
    secret, header = place / "identity.sealed", place / HEADER_NAME
    secret.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        store.get("identity")
    assert caught.value.fix == f"chmod 0600 {secret}"
    header.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        reopen(place)
    assert caught.value.fix == f"chmod 0600 {header}"


def test_a_secret_that_is_a_link_is_refused(tmp_path: Path, place: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    (place / "identity.sealed").rename(tmp_path / "elsewhere")
    (place / "identity.sealed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFault, match="no secret named identity"):
        store.get("identity")


# changed on disk


def test_swapped_names_are_noticed(place: Path, store: KeyStore) -> None:
    store.put("identity", b"one")
    store.put("log", b"other")
    one, other, third = (place / f"{name}.sealed" for name in ("identity", "log", "third"))
    one.rename(third)
    other.rename(one)
    third.rename(other)
    for name in ("identity", "log"):
        with pytest.raises(KeyFault, match="another name"):
            store.get(name)


def test_a_renamed_secret_is_noticed(place: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    (place / "identity.sealed").rename(place / "other.sealed")
    with pytest.raises(KeyFault, match="does not open"):
        store.get("other")


def test_every_flipped_byte_of_a_secret_is_noticed(place: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    file = place / "identity.sealed"
    whole = file.read_bytes()
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(KeyFault, match="does not open"):
            store.get("identity")
    file.write_bytes(whole)
    assert store.get("identity") == b"secret"


def test_every_flipped_byte_of_the_header_is_noticed(place: Path, store: KeyStore) -> None:
    file = place / HEADER_NAME
    whole = file.read_bytes()
    for position in range(HEADER_BYTES):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(KeyFault):
            reopen(place)
    file.write_bytes(whole)
    reopen(place)


@pytest.mark.parametrize("length", [0, 1, len(store_module.FORMAT), HEADER_BYTES - 1])
def test_a_cut_header_is_noticed_before_the_passphrase_is_tried(
    place: Path, store: KeyStore, length: int
) -> None:
    file = place / HEADER_NAME
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(KeyFault, match="no key store that this version can read"):
        reopen(place)


def test_a_header_of_a_newer_format_says_so(place: Path, store: KeyStore) -> None:
    file = place / HEADER_NAME
    file.write_bytes(file.read_bytes().replace(b"/v1", b"/v2"))
    with pytest.raises(KeyFault, match="newer format"):
        reopen(place)


@pytest.mark.parametrize("power", [0, 21, 40, 255])
def test_a_header_cannot_ask_for_all_the_memory(
    place: Path, store: KeyStore, power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(passphrase: bytes, start: bytes) -> bytes:
        raise AssertionError("derived at a cost that was not checked")

    file = place / HEADER_NAME
    whole = file.read_bytes()
    at = len(store_module.FORMAT)
    file.write_bytes(whole[:at] + bytes([power]) + whole[at + 1 :])
    monkeypatch.setattr(store_module, "_stretch", unreachable)
    with pytest.raises(KeyFault, match="damaged"):
        reopen(place)


def test_a_file_grown_huge_is_not_read_whole(place: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    with (place / "identity.sealed").open("r+b") as opened:
        opened.truncate(2**40)
    with pytest.raises(KeyFault, match="does not open"):
        store.get("identity")


@pytest.mark.parametrize("missing", ["directory", "header"])
def test_what_is_missing_is_a_plain_error(place: Path, missing: str) -> None:
    if missing == "header":
        place.mkdir(mode=0o700)
    with pytest.raises(KeyFault, match="no key store to open"):
        reopen(place)


# crashes


KILLED_AT = {
    "write": "store._write_new = lambda draft, data: (draft.write_bytes(data[:9]), die())",
    "file sync": "os.fsync = lambda descriptor: die()",
    "rename": "store.Path.replace = lambda draft, target: die()",
    "directory sync": "store._sync_directory = lambda path: die()",
}
CRASH = """
import os, signal, sys
from pathlib import Path
from keys import store
def die(): os.kill(os.getpid(), signal.SIGKILL)
kept = store.KeyStore.open(Path(sys.argv[1]), sys.argv[2].encode())
{fault}
kept.put("run", b"second")
"""


@pytest.mark.parametrize("step", KILLED_AT)
def test_killed_at_any_step_of_a_put_the_old_or_the_new_secret_stands_whole(
    place: Path, store: KeyStore, step: str
) -> None:
    store.put("run", b"first")
    script = CRASH.format(fault=KILLED_AT[step])
    command = [sys.executable, "-c", script, str(place), PASSPHRASE.decode()]
    done = subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    expected = b"second" if step == "directory sync" else b"first"
    assert reopen(place).get("run") == expected
    assert reopen(place).names() == ["run"]


@pytest.mark.parametrize("step", ["write", "file sync", "rename"])
def test_a_deleted_secret_leaves_no_cut_short_write_behind(
    place: Path, store: KeyStore, step: str
) -> None:
    store.put("run", b"first")
    store.put("run-2", b"other")
    script = CRASH.format(fault=KILLED_AT[step])
    command = [sys.executable, "-c", script, str(place), PASSPHRASE.decode()]
    subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
    (place / ".run-2.0123.tmp").write_bytes(b"of another secret")
    assert len(leftovers(place)) == 2
    store.delete("run")
    assert leftovers(place) == [".run-2.0123.tmp"]
    assert store.names() == ["run-2"]


def test_a_store_whose_making_was_cut_short_can_be_made_again(place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / ".store.0123456789abcdef.tmp").write_bytes(b"half a header")
    KeyStore.create(place, PASSPHRASE, cost=CHEAP).put("identity", b"secret")
    assert reopen(place).names() == ["identity"]


@pytest.mark.parametrize("step", ["_write_new", "_sync_directory"])
def test_a_failing_disk_is_a_plain_error_and_leaves_no_draft(
    place: Path, store: KeyStore, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    store.put("run", b"first")
    monkeypatch.setattr(store_module, step, fail)
    with pytest.raises(KeyFault, match="cannot be written"):
        store.put("run", b"second")
    assert leftovers(place) == []


def test_the_file_reaches_the_disk_before_its_name_and_the_name_before_put_returns(
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


def test_a_store_does_not_show_its_key(store: KeyStore) -> None:
    act: Callable[[object], str]
    for act in (repr, str):
        assert repr(store._key) not in act(store)
        assert store._key.hex() not in act(store)
