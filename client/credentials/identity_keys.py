"""The keys that a node signs its messages with: the current one, its successor, and former ones.

    identity                  signs every run that begins now
    identity-next             exists, but is not in use yet
    identity-former-<name>    still signs the runs that began with it; destroyed after their end

A successor takes over in three atomic writes: the current key is stored as a former one, the
successor is stored in its place, and the second copy of the successor is deleted. If this is
interrupted, it starts again from the beginning.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from threading import RLock

from client.credentials.keyring import IDENTITY
from keys.composite import CompositeSigningKey, Identity, identity_from_bytes
from keys.store import KeyStore

NEXT = "identity-next"
FORMER = "identity-former-"
NAME_BYTES = 16


class IdentityKeys:
    """The identity keys in the key store of one node. Thread-safe."""

    def __init__(self, store: KeyStore) -> None:
        """Raises KeyFault if there is no identity key."""
        self._store, self._lock = store, RLock()
        self._current = self._read(IDENTITY)

    @property
    def current(self) -> Identity:
        """The key in use."""
        return self._current

    @property
    def successor(self) -> Identity | None:
        """The key that will replace the one in use; None if there is none."""
        with self._lock:
            key = self._read(NEXT) if NEXT in self._store.names() else None
            return None if key and key.public == self._current.public else key

    def prepare_successor(self) -> Identity:
        """Return the successor of the key in use; make it if there is none."""
        with self._lock:
            if (successor := self.successor) is not None:
                return successor
            key = CompositeSigningKey.generate()
            self._store.put(NEXT, key.to_bytes())
            return key

    def switch_to_successor(self, on_switch: Callable[[Identity, Identity], None]) -> None:
        """Use the successor from now on; calls `on_switch` with (former, new) at least once."""
        with self._lock:
            successor, former = self.successor, self._current
            if successor is not None:
                self._store.put(_former_name(former), former.to_bytes())
                on_switch(former, successor)
                self._store.put(IDENTITY, successor.to_bytes())
                self._current = successor
            self._delete_copy()

    def find(self, public: str) -> Identity | None:
        """Return the key in use, or a former one, by its public key; None if unknown."""
        with self._lock:
            keys = (self._current, *map(self._read, self._former_names()))
        return next((key for key in keys if key.public.to_text() == public), None)

    def destroy_former_keys_except(self, in_use: AbstractSet[str]) -> None:
        """Destroy the former keys whose public keys are not in `in_use`, those of live runs."""
        with self._lock:
            self._delete_copy()
            for name in self._former_names():
                if self._read(name).public.to_text() not in in_use:
                    self._store.delete(name)

    def _delete_copy(self) -> None:
        if self.successor is None and NEXT in self._store.names():
            self._store.delete(NEXT)

    def _former_names(self) -> list[str]:
        return [name for name in self._store.names() if name.startswith(FORMER)]

    def _read(self, name: str) -> Identity:
        return identity_from_bytes(self._store.get(name))


def _former_name(key: Identity) -> str:
    return FORMER + key.public.raw[:NAME_BYTES].hex()
