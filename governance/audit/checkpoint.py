"""Checkpoints of a log: a signed note of origin, size and root (c2sp.org/tlog-checkpoint)."""

import base64
import re
from dataclasses import dataclass

from governance.audit.merkle import HASH_BYTES
from governance.audit.note import NoteKey, open_note, sign_note
from governance.errors import LogFault
from keys.identity import SigningKey

TEXT = re.compile(
    r"(?P<origin>[^\s+]+)\n(?P<size>0|[1-9][0-9]{0,15})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
)


@dataclass(frozen=True)
class Checkpoint:
    """A log's head: the root hash of its first `size` entries."""

    origin: str
    size: int
    root: bytes

    def to_text(self) -> str:
        """Return the note text: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse a note text; extension lines are refused. Raises LogFault."""
    match = TEXT.fullmatch(text)
    if not match:
        raise LogFault("This is not a checkpoint", why="it is not three lines: origin, size, root")
    root = base64.b64decode(match["root"])
    checkpoint = Checkpoint(match["origin"], int(match["size"]), root)
    if len(root) != HASH_BYTES or checkpoint.to_text() != text:
        raise LogFault("This is not a checkpoint", why="its root is not 32 bytes in base64")
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return the checkpoint as a note signed under the origin's name."""
    return sign_note(checkpoint.to_text(), checkpoint.origin, key)


def open_checkpoint(data: bytes, key: NoteKey) -> Checkpoint:
    """Return the checkpoint that `key` signed; its origin is the key's name. Raises LogFault."""
    checkpoint = parse_checkpoint(open_note(data, key))
    if checkpoint.origin != key.name:
        raise LogFault(
            "The checkpoint belongs to another log", why=f"its origin is {checkpoint.origin}"
        )
    return checkpoint
