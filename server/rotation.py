"""New keys of the coordinator: made, signed for by the countries, and taken up at the next start.

All that a coordinator signs with change together: messages, documents and freshness. The countries
vouch for the new ones by signing the agreement that names them; until then the former ones sign,
and the key store holds both. A run under way goes on: it is carried on after the daemon's restart,
and nodes go by the key that their newest documents name. The log keeps its key: what was logged is
verified by it.
"""

from collections.abc import Mapping
from dataclasses import replace

from governance.documents.agreement import Agreement
from governance.trust.repository import Repository
from keys.identity import SigningKey
from keys.store import KeyStore
from server.home import DOCUMENTS, IDENTITY, ONLINE, CoordinatorHome, CoordinatorKeys

FIELDS: Mapping[str, str] = {
    IDENTITY: "identity_key",
    DOCUMENTS: "document_key",
    ONLINE: "online_key",
}
"""What rotates: the key's name in the store, and in the agreement."""
NEXT = "next-"


def announce(home: CoordinatorHome, passphrase: bytes) -> dict[str, str]:
    """Make new keys beside those in force, once; return their fingerprints, by field.

    The store keeps them before anything names them: a second call returns the same.
    """
    store = KeyStore.open(home.keys, passphrase)
    for name in FIELDS:
        if NEXT + name not in store.names():
            store.put(NEXT + name, SigningKey.generate().to_bytes())
    made = _later(store)
    return {FIELDS[name]: key.public.fingerprint for name, key in made.items()}


def open_keys(home: CoordinatorHome, passphrase: bytes) -> CoordinatorKeys:
    """Unlock the keys, those that the agreement in force names; the former ones are destroyed.

    Raises KeyFault on a wrong passphrase.
    """
    store = KeyStore.open(home.keys, passphrase)
    keys = CoordinatorKeys.load(home, store)
    later, agreement = _later(store), Repository(home.repository).agreement()
    if len(later) < len(FIELDS):  # none, or what a change that was cut short has left
        _forget(store)
        return keys
    if agreement is None or not names(agreement, later):
        return replace(keys, later=later)
    for name, key in later.items():
        store.put(name, key.to_bytes())
    _forget(store)
    return replace(keys, identity=later[IDENTITY], documents=later[DOCUMENTS], online=later[ONLINE])


def names(agreement: Agreement, keys: Mapping[str, SigningKey]) -> bool:
    """Whether the agreement gives the coordinator these keys."""
    desk = agreement.coordinator
    return bool(keys) and all(
        getattr(desk, FIELDS[name]) == key.public.to_text() for name, key in keys.items()
    )


def fields(keys: CoordinatorKeys) -> dict[str, str]:
    """Return what a draft of the agreement says of the coordinator's keys: the newest ones."""
    present = {name: getattr(keys, name) for name in FIELDS}
    newest: dict[str, SigningKey] = present | dict(keys.later)
    made = {FIELDS[name]: key.public.to_text() for name, key in newest.items()}
    return made | {"log_key": keys.log.public.to_text()}


def _later(store: KeyStore) -> dict[str, SigningKey]:
    held = store.names()
    kept = [name for name in FIELDS if NEXT + name in held]
    return {name: SigningKey.from_bytes(store.get(NEXT + name)) for name in kept}


def _forget(store: KeyStore) -> None:
    for name in FIELDS:
        if NEXT + name in store.names():
            store.delete(NEXT + name)
