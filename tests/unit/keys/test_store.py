import os
import shutil
import stat
from pathlib import Path

import pytest

from keys import store as store_module
from keys.errors import KeyFault
from keys.store import HEADER_NAME, SCRYPT_COST, SECRET_LIMIT_BYTES, KeyStore
from tests.support.keystore import LOWEST_SCRYPT_COST, PASSPHRASE, reopen


def snapshot_of(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns)
        for file in directory.iterdir()
    }


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# stored secrets


def test_a_stored_secret_is_read_after_reopening(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"\x00secret\xff")
    store.put("log", b"")
    again = reopen(directory)
    assert again.get("identity") == b"\x00secret\xff"
    assert again.get("log") == b""
    assert again.names() == ["identity", "log"]


def test_a_second_write_replaces_the_first(directory: Path, store: KeyStore) -> None:
    store.put("run", b"first")
    store.put("run", b"second")
    assert reopen(directory).get("run") == b"second"
    assert store.names() == ["run"]


def test_a_deleted_secret_is_gone(directory: Path, store: KeyStore) -> None:
    store.put("run", b"secret")
    store.put("other", b"kept")
    store.delete("run")
    with pytest.raises(KeyFault, match="no secret named run"):
        store.get("run")
    assert reopen(directory).names() == ["other"]


def test_a_missing_secret_cannot_be_read_or_deleted(store: KeyStore) -> None:
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


def test_nothing_on_disk_shows_a_secret_or_the_passphrase(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"a very secret secret")
    contents = b"".join(file.read_bytes() for file in directory.iterdir())
    assert b"very secret" not in contents
    assert PASSPHRASE not in contents


def test_two_stores_with_one_passphrase_have_different_keys(tmp_path: Path) -> None:
    one = KeyStore.create(tmp_path / "one", PASSPHRASE, cost=LOWEST_SCRYPT_COST)
    other = KeyStore.create(tmp_path / "other", PASSPHRASE, cost=LOWEST_SCRYPT_COST)
    one.put("identity", b"secret")
    shutil.copy(tmp_path / "one" / "identity.sealed", tmp_path / "other" / "identity.sealed")
    with pytest.raises(KeyFault, match="another store"):
        other.get("identity")


def test_the_default_cost_is_the_strong_one(directory: Path) -> None:
    KeyStore.create(directory, PASSPHRASE)
    header = (directory / HEADER_NAME).read_bytes()
    assert 1 << header[len(store_module.FORMAT)] == SCRYPT_COST == 2**15


# names


@pytest.mark.parametrize("name", ["a", "0", "run-0f3a", "a" * 100, "result-" + "0f" * 32])
def test_valid_names_are_accepted(store: KeyStore, name: str) -> None:
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
def test_names_that_could_leave_the_folder_are_refused(
    directory: Path, store: KeyStore, name: str
) -> None:
    before = snapshot_of(directory)
    for act in (store.get, store.delete, lambda name: store.put(name, b"secret")):
        with pytest.raises(KeyFault, match="cannot be the name of a secret"):
            act(name)
    assert snapshot_of(directory) == before


# the passphrase


@pytest.mark.parametrize("wrong", [b"", PASSPHRASE + b" ", PASSPHRASE[:-1], b"x" * 2000])
def test_a_wrong_passphrase_is_refused_and_changes_nothing(
    directory: Path, store: KeyStore, wrong: bytes
) -> None:
    store.put("identity", b"secret")
    before = snapshot_of(directory)
    with pytest.raises(KeyFault, match="passphrase does not open") as caught:
        KeyStore.open(directory, wrong)
    assert "nothing was changed" in caught.value.why
    assert snapshot_of(directory) == before
    assert reopen(directory).get("identity") == b"secret"


def test_an_error_repeats_neither_passphrase(directory: Path, store: KeyStore) -> None:
    with pytest.raises(KeyFault) as caught:
        KeyStore.open(directory, b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert PASSPHRASE.decode() not in str(caught.value)


# creation


def test_it_is_created_for_its_owner_only_whatever_the_umask(directory: Path) -> None:
    former = os.umask(0)
    try:
        KeyStore.create(directory, PASSPHRASE, cost=LOWEST_SCRYPT_COST).put("identity", b"secret")
    finally:
        os.umask(former)
    assert mode_of(directory) == 0o700
    assert {mode_of(file) for file in directory.iterdir()} == {0o600}


def test_a_store_is_never_created_over_another(directory: Path, store: KeyStore) -> None:
    store.put("identity", b"secret")
    before = snapshot_of(directory)
    with pytest.raises(KeyFault, match="not empty"):
        KeyStore.create(directory, b"another passphrase", cost=LOWEST_SCRYPT_COST)
    assert snapshot_of(directory) == before


def test_a_store_is_not_created_in_a_folder_with_secrets_but_no_header(
    directory: Path, store: KeyStore
) -> None:
    store.put("identity", b"secret")
    (directory / HEADER_NAME).unlink()
    with pytest.raises(KeyFault, match="not empty"):
        KeyStore.create(directory, PASSPHRASE, cost=LOWEST_SCRYPT_COST)


def test_a_store_is_not_created_in_a_directory_open_to_others(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with pytest.raises(KeyFault) as caught:
        KeyStore.create(directory, PASSPHRASE, cost=LOWEST_SCRYPT_COST)
    assert caught.value.fix == f"chmod 0700 {directory}"
    assert list(directory.iterdir()) == []


def test_a_store_is_not_created_in_place_of_a_file(directory: Path) -> None:
    directory.write_bytes(b"something")
    with pytest.raises(KeyFault, match="cannot hold a key store"):
        KeyStore.create(directory, PASSPHRASE, cost=LOWEST_SCRYPT_COST)
    assert directory.read_bytes() == b"something"


@pytest.mark.parametrize("cost", [-2, 0, 1, 3, 2**15 + 1, 2**21])
def test_a_cost_outside_the_range_of_scrypt_or_the_format_is_refused(
    directory: Path, cost: int
) -> None:
    with pytest.raises(KeyFault, match="scrypt cost"):
        KeyStore.create(directory, PASSPHRASE, cost=cost)


# permissions


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o701, 0o755])
def test_a_directory_open_to_others_is_refused(directory: Path, store: KeyStore, mode: int) -> None:
    directory.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        reopen(directory)
    assert caught.value.fix == f"chmod 0700 {directory}"
    directory.chmod(0o700)
    reopen(directory)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_files_open_to_others_are_refused(directory: Path, store: KeyStore, mode: int) -> None:
    store.put("identity", b"secret")
    secret, header = directory / "identity.sealed", directory / HEADER_NAME
    secret.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        store.get("identity")
    assert caught.value.fix == f"chmod 0600 {secret}"
    header.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        reopen(directory)
    assert caught.value.fix == f"chmod 0600 {header}"


def test_a_secret_that_is_a_link_is_refused(
    tmp_path: Path, directory: Path, store: KeyStore
) -> None:
    store.put("identity", b"secret")
    (directory / "identity.sealed").rename(tmp_path / "elsewhere")
    (directory / "identity.sealed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFault, match="no secret named identity"):
        store.get("identity")


def test_a_store_does_not_show_its_key(store: KeyStore) -> None:
    for texts in (repr(store), str(store)):
        assert repr(store._key) not in texts
        assert store._key.hex() not in texts
