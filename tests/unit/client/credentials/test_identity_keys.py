"""A node's message key is replaced in atomic steps; former keys last as long as their runs."""

from pathlib import Path

import pytest

from client.credentials.identity_keys import FORMER, NEXT, IdentityKeys
from client.credentials.keyring import IDENTITY
from keys.composite import Identity
from keys.errors import KeyFault
from keys.store import KeyStore
from tests.support.documents import raw_key, two_algorithm_key
from tests.support.keystore import fast_store

FIRST = raw_key(1)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    new_store = fast_store(tmp_path / "keys")
    new_store.put(IDENTITY, FIRST.to_bytes())
    return new_store


def ignore(former: Identity, new: Identity) -> None:
    """Do nothing at a switch."""


def test_a_node_without_a_key_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(KeyFault):
        IdentityKeys(fast_store(tmp_path / "keys"))


def test_the_successor_is_made_once_and_not_used_yet(store: KeyStore) -> None:
    keys = IdentityKeys(store)
    assert keys.successor is None
    prepared = keys.prepare_successor()
    assert keys.prepare_successor().public == prepared.public
    assert keys.current.public == FIRST.public
    assert keys.successor is not None


def test_a_switch_uses_the_successor_and_keeps_the_former_key(store: KeyStore) -> None:
    keys, switches = IdentityKeys(store), list[tuple[Identity, Identity]]()
    new = keys.prepare_successor()
    keys.switch_to_successor(lambda *pair: switches.append(pair))
    assert [(a.public, b.public) for a, b in switches] == [(FIRST.public, new.public)]
    assert keys.current.public == IdentityKeys(store).current.public == new.public
    assert keys.successor is None
    former = keys.find(FIRST.public.to_text())
    assert former is not None
    assert former.public == FIRST.public
    assert keys.find(raw_key(9).public.to_text()) is None


def test_a_switch_without_a_successor_changes_nothing(store: KeyStore) -> None:
    keys = IdentityKeys(store)
    keys.switch_to_successor(lambda *_: pytest.fail("nothing changed"))
    assert keys.current.public == FIRST.public


def test_a_switch_interrupted_before_the_key_is_in_use_is_repeated(store: KeyStore) -> None:
    keys = IdentityKeys(store)
    successor = keys.prepare_successor()

    def interrupt(former: Identity, new: Identity) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 (raised by this test)
        keys.switch_to_successor(interrupt)
    again = IdentityKeys(store)
    assert again.current.public == FIRST.public
    again.switch_to_successor(ignore)
    assert again.current.public == successor.public


def test_a_switch_interrupted_after_the_key_is_in_use_leaves_no_second_copy(
    store: KeyStore,
) -> None:
    new = two_algorithm_key(5)
    store.put(NEXT, new.to_bytes())
    store.put(IDENTITY, new.to_bytes())
    keys = IdentityKeys(store)
    assert keys.successor is None
    keys.switch_to_successor(lambda *_: pytest.fail("it is in use already"))
    assert NEXT not in store.names()


def test_former_keys_are_destroyed_once_no_run_needs_them(store: KeyStore) -> None:
    keys = IdentityKeys(store)
    keys.prepare_successor()
    keys.switch_to_successor(ignore)
    keys.destroy_former_keys_except({FIRST.public.to_text()})
    assert keys.find(FIRST.public.to_text()) is not None
    keys.destroy_former_keys_except(set())
    assert keys.find(FIRST.public.to_text()) is None
    assert not [name for name in store.names() if name.startswith(FORMER)]
