"""The key that a node signs its messages with, the one that is to follow, and those before it.

    identity                  signs every run that begins now
    identity-next             made, and not in use yet
    identity-former-<name>    signs on in the runs that began with it, and is destroyed after them

A key takes over in three writes, each whole or not at all: the former one is kept, the next one
put in its place, and then its second copy removed. Cut short, it is done again from the start.
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
    """A node's identity keys in its key store. Safe among threads."""

    def __init__(self, store: KeyStore) -> None:
        """Raises KeyFault where there is no identity key."""
        self._store, self._lock = store, RLock()
        self._present = self._read(IDENTITY)

    @property
    def present(self) -> Identity:
        """The key in use."""
        return self._present

    @property
    def following(self) -> Identity | None:
        """The key that is to follow; None where none waits."""
        with self._lock:
            waiting = self._read(NEXT) if NEXT in self._store.names() else None
            return None if waiting and waiting.public == self._present.public else waiting

    def prepare(self) -> Identity:
        """Return the key that is to follow, made now where none waits."""
        with self._lock:
            if (waiting := self.following) is not None:
                return waiting
            made = CompositeSigningKey.generate()
            self._store.put(NEXT, made.to_bytes())
            return made

    def move(self, note: Callable[[Identity, Identity], None]) -> None:
        """Put the following key in use; `note` is told (former, new) at least once."""
        with self._lock:
            following, former = self.following, self._present
            if following is not None:
                self._store.put(_former(former), former.to_bytes())
                note(former, following)
                self._store.put(IDENTITY, following.to_bytes())
                self._present = following
            self._drop_copy()

    def of(self, public: str) -> Identity | None:
        """Return the key in use, or a former one, by its public key."""
        with self._lock:
            held = (self._present, *map(self._read, self._formers()))
        return next((key for key in held if key.public.to_text() == public), None)

    def forget_all_but(self, bound: AbstractSet[str]) -> None:
        """Destroy the former keys whose public keys are not among those that runs began with."""
        with self._lock:
            self._drop_copy()
            for name in self._formers():
                if self._read(name).public.to_text() not in bound:
                    self._store.delete(name)

    def _drop_copy(self) -> None:
        if self.following is None and NEXT in self._store.names():
            self._store.delete(NEXT)

    def _formers(self) -> list[str]:
        return [name for name in self._store.names() if name.startswith(FORMER)]

    def _read(self, name: str) -> Identity:
        return identity_from_bytes(self._store.get(name))


def _former(key: Identity) -> str:
    return FORMER + key.public.raw[:NAME_BYTES].hex()
