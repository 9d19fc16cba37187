"""Make key stores that open without delay, and inspect their folders."""

from pathlib import Path

from keys.store import KeyStore

CHEAP = 2
"""The least cost that scrypt accepts: for tests only."""
PASSPHRASE = b"four random words here"


def cheap_store(place: Path) -> KeyStore:
    """Make a key store under PASSPHRASE in a new directory."""
    return KeyStore.create(place, PASSPHRASE, cost=CHEAP)


def reopen(place: Path) -> KeyStore:
    """Open a key store again, as another process would."""
    return KeyStore.open(place, PASSPHRASE)


def leftovers(place: Path) -> list[str]:
    """Return the names of temporary files that interrupted writes left."""
    return [file.name for file in place.iterdir() if file.name.startswith(".")]
