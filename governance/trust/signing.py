"""The officer's side: a country's documents in a folder, signed with the country's key."""

from datetime import datetime
from pathlib import Path

from governance.documents.permit import NodeKeys, Permit, Withdrawal
from keys.identity import SigningKey


class OfficerDocuments:
    """The state of role `country-XX` in a folder of the officer's home.

    Changes wait in the folder until `sign`; each signature makes a new version, kept before it
    is handed out, so that no version is ever signed twice with different contents.
    """

    def __init__(self, directory: Path, country: str) -> None:
        self._directory, self._country = directory, country

    @property
    def version(self) -> int:
        """The version signed last; 0 before the first."""
        raise NotImplementedError

    def set_node(self, keys: NodeKeys) -> None:
        """Vouch for the keys of the own node."""
        raise NotImplementedError

    def approve(self, permit: Permit) -> None:
        """Add a permit; a withdrawal of the same study is taken back with it."""
        raise NotImplementedError

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Add a withdrawal; it outweighs the permit."""
        raise NotImplementedError

    def set_policy(self, text: str | None) -> None:
        """Set or remove the national policy. Raises DocumentFault where it is not forbid-only."""
        raise NotImplementedError

    def sign(self, now: datetime, key: SigningKey, *, at_least: int = 0) -> bytes:
        """Sign everything as it stands, for seven days; return the bundle as one file.

        The version is above the last one and above `at_least` (what the exchange shows).
        """
        raise NotImplementedError

    def bundle(self) -> bytes | None:
        """Return the bundle signed last."""
        raise NotImplementedError
