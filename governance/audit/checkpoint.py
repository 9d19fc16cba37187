"""Checkpoints of a log: a signed note of origin, size and root (c2sp.org/tlog-checkpoint)."""

from dataclasses import dataclass

from governance.audit.note import NoteKey
from keys.identity import SigningKey


@dataclass(frozen=True)
class Checkpoint:
    """A log's head: the root hash of its first `size` entries."""

    origin: str
    size: int
    root: bytes

    def to_text(self) -> str:
        """Return the note text: three lines."""
        raise NotImplementedError


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse a note text; extension lines are refused. Raises LogFault."""
    raise NotImplementedError


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return the checkpoint as a note signed under the origin's name."""
    raise NotImplementedError


def open_checkpoint(data: bytes, key: NoteKey) -> Checkpoint:
    """Return the checkpoint that `key` signed; its origin is the key's name. Raises LogFault."""
    raise NotImplementedError
