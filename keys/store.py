"""The key store: named secrets in one private directory, encrypted under a passphrase."""

from pathlib import Path
from typing import Self

SCRYPT_COST = 2**15


class KeyStore:
    """Named secrets, each in its own sealed file. Names are lower-case letters, digits, hyphens."""

    @classmethod
    def create(cls, path: Path, passphrase: bytes, *, cost: int = SCRYPT_COST) -> Self:
        """Make an empty store in the directory `path`. Raises KeyFault when one is there."""
        raise NotImplementedError

    @classmethod
    def open(cls, path: Path, passphrase: bytes) -> Self:
        """Open the store. Raises KeyFault, changing nothing: wrong passphrase, open permissions."""
        raise NotImplementedError

    def put(self, name: str, secret: bytes) -> None:
        """Keep the secret under the name, durably, in place of any former one."""
        raise NotImplementedError

    def get(self, name: str) -> bytes:
        """Return the secret. Raises KeyFault when there is none, or its file was changed."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return the names held, sorted."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Remove the secret, durably. Raises KeyFault when there is none."""
        raise NotImplementedError
