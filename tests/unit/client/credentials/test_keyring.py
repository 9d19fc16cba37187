"""A node's secrets: one for each purpose, never printed, and all of them or none."""

from dataclasses import fields
from pathlib import Path

import pytest

from client.credentials.keyring import NodeKeyring
from keys.errors import KeyFault
from keys.store import KeyStore
from tests.support.keystore import fast_store, reopen


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return fast_store(tmp_path / "keys")


def test_created_secrets_are_loaded_again(store: KeyStore, tmp_path: Path) -> None:
    made, line = NodeKeyring.create(store)
    loaded = NodeKeyring.load(reopen(tmp_path / "keys"))
    assert loaded.identity.public == made.identity.public
    assert (loaded.log_key.public, loaded.split_key) == (made.log_key.public, made.split_key)
    assert line.startswith("ecdsa-sha2-nistp384 ")


def test_two_nodes_share_no_secret_and_one_node_has_each_once(tmp_path: Path) -> None:
    rings = [NodeKeyring.create(fast_store(tmp_path / name))[0] for name in ("a", "b")]
    secrets = [
        value if isinstance(value, bytes) else value.to_bytes()
        for ring in rings
        for value in (getattr(ring, field.name) for field in fields(ring))
        if not isinstance(value, bool)
    ]
    assert len(secrets) == len(set(secrets)) == 12


def test_secrets_are_never_printed(store: KeyStore) -> None:
    made, _ = NodeKeyring.create(store)
    assert made.sealing_key.hex() not in repr(made)
    assert repr(made.sealing_key) not in repr(made)


def test_a_missing_secret_is_named(store: KeyStore) -> None:
    NodeKeyring.create(store)
    for name in list(store.names()):
        secret = store.get(name)
        store.delete(name)
        with pytest.raises(KeyFault, match=name):
            NodeKeyring.load(store)
        store.put(name, secret)
