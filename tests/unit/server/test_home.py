"""The coordinator's folder: created once, for its owner only, read strictly."""

import json
import os
import stat
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from governance.audit.log import AuditLog
from governance.errors import StorageFault
from governance.runtime.database import open_database
from keys.certificates import Role, certificate_fingerprint, peer_of
from keys.errors import KeyFault
from keys.store import KeyStore
from server.errors import CoordinatorFault
from server.home import (
    SETTINGS_FILE,
    CoordinatorHome,
    CoordinatorKeys,
    Settings,
    create_home,
    host_of,
    write_new,
)
from server.state.tables import MIGRATIONS
from tests.support.certificates import alternative_names
from tests.support.keystore import LOWEST_SCRYPT_COST, PASSPHRASE

SETTINGS = Settings(federation="danube", listen="0.0.0.0:7443", address="exchange.example.org:7443")


@pytest.fixture(autouse=True)
def _cheap_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    create = KeyStore.create.__func__  # type: ignore[attr-defined]
    cheap = classmethod(lambda cls, path, word: create(cls, path, word, cost=LOWEST_SCRYPT_COST))
    monkeypatch.setattr(KeyStore, "create", cheap)


@pytest.fixture
def home(tmp_path: Path, moment: datetime) -> CoordinatorHome:
    new_home = CoordinatorHome(tmp_path / "home")
    create_home(new_home, SETTINGS, PASSPHRASE, moment)
    return new_home


def test_only_the_owner_has_access_to_the_folder_and_its_files(home: CoordinatorHome) -> None:
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    for path in home.path.rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_no_private_key_is_stored_unencrypted(home: CoordinatorHome) -> None:
    for path in home.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"PRIVATE KEY" not in content, path
            assert PASSPHRASE not in content


def test_the_keys_can_be_opened_and_all_differ(home: CoordinatorHome) -> None:
    keys = CoordinatorKeys.load(home, KeyStore.open(home.keys, PASSPHRASE))
    signing = {
        k.public.to_text()
        for k in (keys.identity, keys.document_key, keys.online_key, keys.log_key)
    }
    assert len(signing) == 4
    again = CoordinatorKeys.load(home, KeyStore.open(home.keys, PASSPHRASE))
    assert again.identity.public == keys.identity.public
    assert keys.transport.line.generations[0].authority.federation == "danube"


def test_a_wrong_passphrase_opens_nothing(home: CoordinatorHome) -> None:
    with pytest.raises(KeyFault) as caught:
        KeyStore.open(home.keys, b"something else")
    assert caught.value.fix


def test_the_certificate_of_the_exchange_names_its_hosts_and_no_wildcard(
    home: CoordinatorHome, moment: datetime
) -> None:
    keys = CoordinatorKeys.load(home, KeyStore.open(home.keys, PASSPHRASE))
    root, certificate = keys.transport.trusted(moment), keys.transport.certificate
    peer = peer_of(certificate, authority_pem=root, now=moment, revoked=())
    assert (peer.country, peer.role) == ("ZZ", Role.COORDINATOR)
    names = str(alternative_names(certificate))
    assert "exchange.example.org" in names
    assert "localhost" in names
    assert host_of(SETTINGS.listen) not in names
    stored = (home.path / "authority.pem").read_bytes()
    assert keys.transport.in_force(moment).digest == certificate_fingerprint(stored)


def test_a_coordinator_is_never_created_over_another_one(
    home: CoordinatorHome, moment: datetime
) -> None:
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    with pytest.raises(CoordinatorFault, match="already") as caught:
        create_home(home, SETTINGS, b"another passphrase", moment)
    assert caught.value.why
    assert "--home" in caught.value.fix
    assert {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()} == before


def test_the_first_log_entry_is_the_creation_of_the_coordinator(
    home: CoordinatorHome, moment: datetime
) -> None:
    keys = CoordinatorKeys.load(home, KeyStore.open(home.keys, PASSPHRASE))
    log = AuditLog(open_database(home.database, MIGRATIONS), SETTINGS.log_origin, keys.log_key)
    (entry,) = (json.loads(entry) for entry in log.entries())
    assert (entry["kind"], entry["actor"]) == ("coordinator-initialised", "coordinator")
    assert entry["origin"] == "pratique/danube/coordinator"
    assert datetime.fromisoformat(entry["at"]) == moment


def test_no_coordinator_is_created_if_its_creation_cannot_be_logged(
    tmp_path: Path, moment: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageFault("The disk is full")

    monkeypatch.setattr("server.home._begin_log", fail)
    home = CoordinatorHome(tmp_path / "home")
    with pytest.raises(StorageFault):
        create_home(home, SETTINGS, PASSPHRASE, moment)
    assert not home.path.exists()


def test_settings_are_read_back_unchanged(home: CoordinatorHome) -> None:
    assert home.settings() == SETTINGS


def test_a_folder_without_settings_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorFault, match="no coordinator") as caught:
        CoordinatorHome(tmp_path).settings()
    assert "init" in caught.value.fix


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: [",
        "federation: danube",
        "!!python/object/apply:os.system ['true']",
        "federation: danube\nlisten: 127.0.0.1:1\naddress: 127.0.0.1:1\nmore: 1",
        "federation: DANUBE\nlisten: 127.0.0.1:1\naddress: 127.0.0.1:1",
    ],
)
def test_damaged_settings_are_reported_in_plain_words(home: CoordinatorHome, text: str) -> None:
    (home.path / SETTINGS_FILE).write_text(text)
    with pytest.raises(CoordinatorFault, match="cannot be read") as caught:
        home.settings()
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:7443", "0.0.0.0:1", "[::1]:7443", "exchange.example.org:443", "localhost:65535"],
)
def test_valid_addresses_are_accepted(address: str) -> None:
    assert Settings(federation="x", listen=address, address=address).listen == address


@pytest.mark.parametrize(
    "address",
    [
        "", ":7443", "host", "host:", "host:port", "host:65536", "host:99999", "host:-1",
        "host:7443 ", "ho st:1", "unix:/tmp/x", "http://host:1", "host:1\n", "::1:7443",
    ],
)  # fmt: skip
def test_invalid_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        Settings(federation="x", listen=address, address="host:1")


@pytest.mark.parametrize("name", ["", "X", "-x", "x" * 64, "a b", "a_b", "ä", "a\n"])
def test_invalid_names_of_federations_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings(federation=name, listen="host:1", address="host:1")


def test_the_host_is_taken_from_an_address() -> None:
    assert [host_of(a) for a in ("a.b:1", "[::1]:2", "127.0.0.1:3")] == ["a.b", "::1", "127.0.0.1"]


def test_a_written_file_is_complete_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_new(tmp_path / "x", b"one")
        write_new(tmp_path / "x", b"two")
    finally:
        os.umask(old)
    assert (tmp_path / "x").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_path_that_cannot_be_written_is_reported_in_plain_words(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "such" / "x", Path("/proc/x")):
        with pytest.raises(CoordinatorFault, match="cannot be written") as caught:
            write_new(path, b"x")
        assert caught.value.why
        assert "folder" in caught.value.fix


def test_a_full_disk_changes_nothing_and_is_reported_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_new(tmp_path / "x", b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CoordinatorFault) as caught:
        write_new(tmp_path / "x", b"after")
    assert caught.value.why == "No space left on device"
    assert (tmp_path / "x").read_bytes() == b"before"
