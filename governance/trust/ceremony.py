"""The signing ceremony on paper: a draft, what it must say, and the signatures over it."""

from dataclasses import dataclass
from datetime import datetime

from governance.documents.agreement import Agreement
from keys.identity import SigningKey


@dataclass(frozen=True)
class DraftStatus:
    """Who has signed a draft, who has not, and how many signatures are still needed."""

    digest: str
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    needed: int

    @property
    def ready(self) -> bool:
        """Whether the draft can be published."""
        return self.needed == 0


@dataclass(frozen=True)
class Draft:
    """Root and targets metadata (TUF JSON) with the agreement that they carry."""

    root: bytes
    targets: bytes
    agreement: Agreement

    @classmethod
    def from_bytes(cls, data: bytes) -> "Draft":
        """Return the draft, having checked that its metadata say what its agreement says.

        Raises DocumentFault otherwise.
        """
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the draft as one file."""
        raise NotImplementedError


def sign_draft(
    draft: Draft, *keys: SigningKey, previous_root: bytes | None, now: datetime
) -> bytes:
    """Return signatures over root and targets, as one file.

    More than one key where an officer's key changes: the new one and the old one both sign.
    Raises DocumentFault where a key is no party's, or the draft does not follow `previous_root`.
    """
    raise NotImplementedError
