"""Verifies an exported log with nothing but its lines, a checkpoint and a public key.

Shares no code with the store; what does not verify is named.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from governance.audit.note import NoteKey


@dataclass(frozen=True)
class VerifiedLog:
    """A whole log: every entry of `origin` below `size` is as it was when the root was signed."""

    origin: str
    size: int
    root: bytes


def verify_export(
    lines: Iterable[bytes], checkpoint: bytes, key: NoteKey, *, seen: Iterable[bytes] = ()
) -> VerifiedLog:
    """Verify exported lines against a signed checkpoint, and earlier checkpoints `seen`.

    Raises LogFault naming the entry or checkpoint that is wrong: changed, missing, out of place,
    too many, or (against `seen`) rolled back or forked.
    """
    raise NotImplementedError
