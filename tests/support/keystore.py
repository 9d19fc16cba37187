"""Make key stores that open without delay, and inspect their folders."""

from pathlib import Path

from keys.store import KeyStore

LOWEST_SCRYPT_COST = 2
"""The lowest cost that scrypt accepts: for tests only."""
PASSPHRASE = b"four random words here"


def fast_store(directory: Path) -> KeyStore:
    """Make a key store under PASSPHRASE in a new directory."""
    return KeyStore.create(directory, PASSPHRASE, cost=LOWEST_SCRYPT_COST)


def reopen(directory: Path) -> KeyStore:
    """Open a key store again, as another process would."""
    return KeyStore.open(directory, PASSPHRASE)


def leftovers(directory: Path) -> list[str]:
    """Return the names of temporary files that interrupted writes left."""
    return [file.name for file in directory.iterdir() if file.name.startswith(".")]
