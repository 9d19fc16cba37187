"""Key stores that open at once, and what to look at beside them."""

from pathlib import Path

from keys.store import KeyStore

CHEAP = 2
"""The least cost that scrypt takes: for tests only."""
PASSPHRASE = b"four random words here"


def cheap_store(place: Path) -> KeyStore:
    """Make a key store under PASSPHRASE in a new directory."""
    return KeyStore.create(place, PASSPHRASE, cost=CHEAP)


def reopen(place: Path) -> KeyStore:
    """Open it again, as another process would."""
    return KeyStore.open(place, PASSPHRASE)


def leftovers(place: Path) -> list[str]:
    """Return the names of writes that were cut short."""
    return [file.name for file in place.iterdir() if file.name.startswith(".")]
