"""`pratique-node init` checks everything before it creates anything."""

import json
from pathlib import Path

import pytest

from client.commands.init import create_node, officer_key
from client.credentials.keyring import NodeKeyring
from client.errors import NodeFault, RecordFault
from client.home import NodeHome
from client.settings import NodeSettings
from client.state.tables import MIGRATIONS
from governance.audit.log import AuditLog
from governance.documents.permit import NodeKeys
from governance.runtime.database import open_database
from keys.composite import Suite, read_identity
from keys.errors import KeyFault
from keys.store import KeyStore
from tests.support.joining_node import (
    NOW,
    OFFICER,
    create_joining_node,
    files,
    keyring,
)
from tests.support.keystore import LOWEST_SCRYPT_COST, PASSPHRASE


def test_a_node_has_keys_state_and_settings(tmp_path: Path) -> None:
    home = create_joining_node(tmp_path)
    keys = NodeKeys.from_canonical(home.node_keys.read_bytes())
    secrets = keyring(home)
    assert keys.identity_key == secrets.identity.public.to_text()
    assert keys.log_key == secrets.log_key.public.to_text()
    assert keys.node_auth.startswith("ecdsa-sha2-nistp384 ")
    assert keys.log_origin == "pratique/dk/node"
    assert home.settings().enrolment is None


def test_a_new_node_can_sign_in_every_suite_of_an_agreement(tmp_path: Path) -> None:
    home = create_joining_node(tmp_path)
    keys = NodeKeys.from_canonical(home.node_keys.read_bytes())
    assert Suite.COMPOSITE.admits(read_identity(keys.identity_key))
    assert not Suite.COMPOSITE.admits(read_identity(keys.log_key))


def test_all_keys_of_a_node_differ(tmp_path: Path) -> None:
    secrets = keyring(create_joining_node(tmp_path))
    values = [
        secrets.identity.to_bytes(),
        secrets.log_key.to_bytes(),
        secrets.sealing_key,
        secrets.split_key,
        secrets.transport_key,
        secrets.node_auth_key,
    ]
    assert len(set(values)) == len(values)


def test_two_nodes_share_no_secret(tmp_path: Path) -> None:
    one, two = (
        keyring(create_joining_node(tmp_path / "1")),
        keyring(create_joining_node(tmp_path / "2")),
    )
    assert one.identity.public != two.identity.public
    assert {one.sealing_key, one.split_key}.isdisjoint({two.sealing_key, two.split_key})


def test_the_first_log_entry_is_the_creation_of_the_node(tmp_path: Path) -> None:
    home = create_joining_node(tmp_path)
    log = AuditLog(
        open_database(home.database, MIGRATIONS), "pratique/dk/node", keyring(home).log_key
    )
    (entry,) = [json.loads(entry) for entry in log.entries()]
    assert (entry["kind"], entry["actor"]) == ("node-initialised", "DK")


def test_no_secret_is_on_disk_in_the_clear(tmp_path: Path) -> None:
    home = create_joining_node(tmp_path)
    secrets = keyring(home)
    contents = b"".join(file.read_bytes() for file in home.path.rglob("*") if file.is_file())
    for secret in (secrets.identity.to_bytes(), secrets.sealing_key, secrets.transport_key[60:120]):
        assert secret not in contents


def test_only_the_owner_has_access_to_any_file(tmp_path: Path) -> None:
    home = create_joining_node(tmp_path)
    for path in (home.path, *home.path.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("data", "dictionary"),
    [
        ("id,age,sex,disease\np1,abc,F,1\n", None),
        (None, "dictionary: 1\ntitle: t\npatient: id\nfeatures: [{name: age, type: numeric}]\n"),
        (None, "features: ["),
        (None, "dictionary: 2\n"),
        ("no header at all\n", None),
    ],
    ids=["a bad value", "no bounds", "no YAML", "another format", "no columns"],
)
def test_bad_records_prevent_the_creation_of_a_node(
    tmp_path: Path, data: str | None, dictionary: str | None
) -> None:
    paths = files(tmp_path / "files")
    if data is not None:
        paths["data"].write_text(data)
    if dictionary is not None:
        paths["dictionary"].write_text(dictionary)
    home = NodeHome(tmp_path / "node")
    settings = NodeSettings(country="DK", officer_key=OFFICER, **paths)
    with pytest.raises(RecordFault):
        create_node(home, settings, pytest.fail, NOW, cost=LOWEST_SCRYPT_COST)
    assert not home.path.exists()


def test_a_missing_file_prevents_the_creation_of_a_node(tmp_path: Path) -> None:
    paths = files(tmp_path / "files") | {"opt_out": tmp_path / "none.txt"}
    home = NodeHome(tmp_path / "node")
    settings = NodeSettings(country="DK", officer_key=OFFICER, **paths)
    with pytest.raises(RecordFault, match=r"none\.txt"):
        create_node(home, settings, pytest.fail, NOW, cost=LOWEST_SCRYPT_COST)
    assert not home.path.exists()


def test_a_keyring_without_one_of_its_keys_is_reported(tmp_path: Path) -> None:
    home = create_joining_node(tmp_path)
    store = KeyStore.open(home.keys, PASSPHRASE)
    store.delete("run-state")
    with pytest.raises(KeyFault, match="run-state"):
        NodeKeyring.load(store)


def test_the_key_of_an_officer_is_a_text_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "country.pub"
    file.write_text(OFFICER + "\n")
    assert officer_key(OFFICER) == officer_key(str(file)) == officer_key(f"  {OFFICER} ")


@pytest.mark.parametrize("given", ["", "ed25519:AAAA", "no-such-file.pub", OFFICER[:-2]])
def test_a_text_that_is_no_key_is_refused(given: str) -> None:
    with pytest.raises(NodeFault) as fault:
        officer_key(given)
    assert "pratique-officer keygen" in fault.value.fix


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content in (b"", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----", b"x" * 10_000):
        file.write_bytes(content)
        with pytest.raises(NodeFault):
            officer_key(str(file))
