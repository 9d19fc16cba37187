"""The secret of a log's key, which also says whether the log's head is signed at each commit.

A version of this program that signed no heads stored the key alone. What follows the key is part of
the sealed secret: nobody can remove it without the passphrase, so that a log without a signed head
cannot be passed off as one of the former version.
"""

from dataclasses import dataclass
from typing import Self

from keys.identity import SigningKey
from keys.store import KeyStore

SIGNS_HEADS = b"signs-heads"


@dataclass(frozen=True, repr=False)
class LogKey:
    """A log's key; `signs_heads` is whether a head of the log was ever signed at a commit."""

    key: SigningKey
    signs_heads: bool = True

    @classmethod
    def load(cls, store: KeyStore, name: str) -> Self:
        """Read it from a key store. Raises KeyFault."""
        secret = store.get(name)
        key = SigningKey.from_bytes(secret.removesuffix(SIGNS_HEADS))
        return cls(key, signs_heads=secret.endswith(SIGNS_HEADS))

    @staticmethod
    def create(store: KeyStore, name: str) -> None:
        """Make and store the key of a new log. Raises KeyFault."""
        store.put(name, SigningKey.generate().to_bytes() + SIGNS_HEADS)

    def note_signed(self, store: KeyStore, name: str) -> None:
        """Store that the log has a signed head from now on. Raises KeyFault."""
        if not self.signs_heads:
            store.put(name, self.key.to_bytes() + SIGNS_HEADS)
