"""New keys of the coordinator: made, signed for by the countries, and taken up at the next start.

All that a coordinator signs with change together: messages, documents and freshness. The countries
vouch for the new ones by signing the agreement that names them; until then the former ones sign,
and the key store holds both. A run under way goes on: it is carried on after the daemon's restart,
and nodes go by the key that their newest documents name. The new key for messages has two halves,
Ed25519 and ML-DSA-65, whatever the former one was. The log keeps its key: what was logged is
verified by it.
"""

from dataclasses import replace

from governance.documents.agreement import Agreement
from governance.trust.repository import Repository
from keys.composite import CompositeSigningKey, Identity, identity_from_bytes
from keys.identity import SigningKey
from keys.store import KeyStore
from server.home import DOCUMENTS, IDENTITY, ONLINE, CoordinatorHome, CoordinatorKeys, LaterKeys

NEXT = "next-"
ROTATED = (IDENTITY, DOCUMENTS, ONLINE)


def announce(home: CoordinatorHome, passphrase: bytes) -> dict[str, str]:
    """Make new keys beside those in force, once; return their fingerprints, by field.

    The store keeps them before anything names them: a second call returns the same.
    """
    store = KeyStore.open(home.keys, passphrase)
    for name in ROTATED:
        if NEXT + name not in store.names():
            store.put(NEXT + name, _made(name).to_bytes())
    return {name: key.public.fingerprint for name, key in _by_field(_waiting(store)).items()}


def open_keys(home: CoordinatorHome, passphrase: bytes) -> CoordinatorKeys:
    """Unlock the keys, those that the agreement in force names; the former ones are destroyed.

    Raises KeyFault on a wrong passphrase.
    """
    store = KeyStore.open(home.keys, passphrase)
    keys = CoordinatorKeys.load(home, store)
    later, agreement = _later(store), Repository(home.repository).agreement()
    if later is None:  # none, or what a change that was cut short has left
        _forget(store)
        return keys
    if agreement is None or not names(agreement, later):
        return replace(keys, later=later)
    for name in ROTATED:
        store.put(name, store.get(NEXT + name))
    _forget(store)
    return replace(keys, identity=later.identity, documents=later.documents, online=later.online)


def names(agreement: Agreement, keys: LaterKeys) -> bool:
    """Whether the agreement gives the coordinator these keys."""
    coordinator = agreement.coordinator
    return all(
        getattr(coordinator, name) == key.public.to_text() for name, key in _by_field(keys).items()
    )


def fields(keys: CoordinatorKeys) -> dict[str, str]:
    """Return what a draft of the agreement says of the coordinator's keys: the newest ones."""
    made = {n: key.public.to_text() for n, key in _by_field(keys.later or keys).items()}
    return made | {"log_key": keys.log.public.to_text()}


def _by_field(keys: CoordinatorKeys | LaterKeys) -> dict[str, Identity]:
    """Return what rotates, by its name in the agreement."""
    return {
        "identity_key": keys.identity,
        "document_key": keys.documents,
        "online_key": keys.online,
    }


def _made(name: str) -> Identity:
    return CompositeSigningKey.generate() if name == IDENTITY else SigningKey.generate()


def _later(store: KeyStore) -> LaterKeys | None:
    whole = all(NEXT + name in store.names() for name in ROTATED)
    return _waiting(store) if whole else None


def _waiting(store: KeyStore) -> LaterKeys:
    return LaterKeys(
        identity=identity_from_bytes(store.get(NEXT + IDENTITY)),
        documents=SigningKey.from_bytes(store.get(NEXT + DOCUMENTS)),
        online=SigningKey.from_bytes(store.get(NEXT + ONLINE)),
    )


def _forget(store: KeyStore) -> None:
    for name in ROTATED:
        if NEXT + name in store.names():
            store.delete(NEXT + name)
