"""Rotates the coordinator's keys: creates new ones, and uses them once the agreement names them.

All keys with which the coordinator signs change together: for messages, documents and freshness.
The countries put the new keys in force by signing the agreement that names them. Until then the
former keys sign, and the key store holds both. A run in progress continues: the daemon resumes it
after its restart, and nodes use the key that their newest documents name. The new key for messages
has two halves, Ed25519 and ML-DSA-65, whatever the former one was. The log keeps its key, because
that key verifies the earlier entries.
"""

from dataclasses import replace

from governance.documents.agreement import Agreement
from governance.trust.repository import Repository
from keys.composite import CompositeSigningKey, Identity, identity_from_bytes
from keys.identity import SigningKey
from keys.store import KeyStore
from server.home import DOCUMENTS, IDENTITY, ONLINE, CoordinatorHome, CoordinatorKeys, NextKeys

NEXT = "next-"
ROTATED = (IDENTITY, DOCUMENTS, ONLINE)


def make_next_keys(home: CoordinatorHome, passphrase: bytes) -> dict[str, str]:
    """Create new keys beside those in force; return their fingerprints by field of the agreement.

    The store keeps them before anything names them, so a second call returns the same keys.
    """
    store = KeyStore.open(home.keys, passphrase)
    for name in ROTATED:
        if NEXT + name not in store.names():
            store.put(NEXT + name, _new_key(name).to_bytes())
    next_keys = _read_next_keys(store)
    return {name: key.public.fingerprint for name, key in _by_field(next_keys).items()}


def open_keys(home: CoordinatorHome, passphrase: bytes) -> CoordinatorKeys:
    """Unlock the keys that the agreement in force names, and destroy the former ones.

    Raises KeyFault on a wrong passphrase.
    """
    store = KeyStore.open(home.keys, passphrase)
    keys = CoordinatorKeys.load(home, store)
    next_keys, agreement = _complete_next_keys(store), Repository(home.repository).agreement()
    if next_keys is None:  # there are none, or a crash interrupted an earlier change
        _delete_next_keys(store)
        return keys
    if agreement is None or not agreement_names(agreement, next_keys):
        return replace(keys, next_keys=next_keys)
    for name in ROTATED:
        store.put(name, store.get(NEXT + name))
    _delete_next_keys(store)
    return replace(
        keys,
        identity=next_keys.identity,
        document_key=next_keys.document_key,
        online_key=next_keys.online_key,
    )


def agreement_names(agreement: Agreement, keys: NextKeys) -> bool:
    """Return whether the agreement names these keys as the coordinator's."""
    coordinator = agreement.coordinator
    return all(
        getattr(coordinator, name) == key.public.to_text() for name, key in _by_field(keys).items()
    )


def key_fields(keys: CoordinatorKeys) -> dict[str, str]:
    """Return the coordinator's newest public keys, by field of a draft agreement."""
    newest = _by_field(keys.next_keys or keys)
    texts = {name: key.public.to_text() for name, key in newest.items()}
    return texts | {"log_key": keys.log_key.public.to_text()}


def _by_field(keys: CoordinatorKeys | NextKeys) -> dict[str, Identity]:
    """Return the keys that rotate, by field of the agreement."""
    return {
        "identity_key": keys.identity,
        "document_key": keys.document_key,
        "online_key": keys.online_key,
    }


def _new_key(name: str) -> Identity:
    return CompositeSigningKey.generate() if name == IDENTITY else SigningKey.generate()


def _complete_next_keys(store: KeyStore) -> NextKeys | None:
    complete = all(NEXT + name in store.names() for name in ROTATED)
    return _read_next_keys(store) if complete else None


def _read_next_keys(store: KeyStore) -> NextKeys:
    return NextKeys(
        identity=identity_from_bytes(store.get(NEXT + IDENTITY)),
        document_key=SigningKey.from_bytes(store.get(NEXT + DOCUMENTS)),
        online_key=SigningKey.from_bytes(store.get(NEXT + ONLINE)),
    )


def _delete_next_keys(store: KeyStore) -> None:
    for name in ROTATED:
        if NEXT + name in store.names():
            store.delete(NEXT + name)
