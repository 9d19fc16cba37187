"""Verify an exported log from its lines, a checkpoint and a public key, and nothing else.

This shares no code with the store. An error names what does not verify.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from governance.audit.checkpoint import Checkpoint, open_checkpoint
from governance.audit.events import LARGEST_ENTRY, parse_entry
from governance.audit.merkle import HASH_BYTES, Frontier, leaf_hash
from governance.audit.note import NoteKey
from governance.errors import LogFault

LARGEST_LINE = LARGEST_ENTRY + 128
BEFORE, BETWEEN, AFTER = b'{"entry":', b',"leaf":"', b'"}'
TAIL = len(BETWEEN) + 2 * HASH_BYTES + len(AFTER)
"""The parts of an export line around its entry and its hash, and the length of what follows."""


@dataclass(frozen=True)
class VerifiedLog:
    """A verified log: its first `size` entries are as they were when the root was signed."""

    origin: str
    size: int
    root: bytes


def verify_export(
    lines: Iterable[bytes], checkpoint: bytes, key: NoteKey, *, seen: Iterable[bytes] = ()
) -> VerifiedLog:
    """Verify exported lines against a signed checkpoint, and earlier checkpoints `seen`.

    Raises LogFault naming the entry or the smallest checkpoint that is wrong: changed, missing,
    at another position, too many, or (against `seen`) rolled back or forked.
    """
    head = open_checkpoint(checkpoint, key)
    earlier = [open_checkpoint(note, key) for note in seen]
    roots = _roots(lines, head.origin, {head.size, *(known.size for known in earlier)})
    for known in sorted((head, *earlier), key=lambda known: known.size):
        _require_root(known, roots, head)
    if max(roots) != head.size:
        raise LogFault(
            f"The export holds {max(roots)} entries, but the checkpoint signs {head.size}",
            why="entries are missing, or were added after it was signed",
            fix="export the log again together with its newest checkpoint",
        )
    return VerifiedLog(head.origin, head.size, head.root)


def _roots(lines: Iterable[bytes], origin: str, sizes: set[int]) -> Mapping[int, bytes]:
    """Return the root at each of `sizes` that the lines reach, and at their end."""
    tree = Frontier()
    roots = {0: tree.root()}
    for leaf in _leaves(lines, origin):
        tree.add(leaf)
        if tree.size in sizes:
            roots[tree.size] = tree.root()
    return {**roots, tree.size: tree.root()}


def _leaves(lines: Iterable[bytes], origin: str) -> Iterator[bytes]:
    for index, line in enumerate(lines):
        try:
            yield _leaf(line.removesuffix(b"\n"), index, origin)
        except LogFault as fault:
            raise LogFault(f"Entry {index} does not verify", why=str(fault)) from fault


def _leaf(line: bytes, index: int, origin: str) -> bytes:
    """Compute the leaf hash of an export line, which has exactly one form."""
    entry, stated = _parts(line)
    _require_position(parse_entry(entry), index, origin)
    leaf = leaf_hash(entry)
    if stated != leaf.hex().encode():
        raise LogFault("It was changed after it was logged", why="its hash does not match")
    return leaf


def _parts(line: bytes) -> tuple[bytes, bytes]:
    """Return the entry and the hexadecimal hash in an export line."""
    entry, leaf = line[len(BEFORE) : -TAIL], line[-TAIL:][len(BETWEEN) : -len(AFTER)]
    if len(line) > LARGEST_LINE or line != BEFORE + entry + BETWEEN + leaf + AFTER:
        raise LogFault("This is not a line of an exported log", why="it was changed or cut off")
    return entry, leaf


def _require_position(entry: Mapping[str, Any], index: int, origin: str) -> None:
    if (entry["index"], entry["origin"]) != (index, origin):
        raise LogFault(
            "It is at the wrong position",
            why=f"it is entry {entry['index']} of {entry['origin']}",
        )


def _require_root(known: Checkpoint, roots: Mapping[int, bytes], head: Checkpoint) -> None:
    if known.size > head.size:
        raise LogFault(
            f"The log was rolled back: {known.size} entries were signed before, {head.size} now",
            fix="keep the earlier checkpoint, and notify the privacy officer",
        )
    if known.size in roots and roots[known.size] != known.root:
        raise LogFault(
            f"The first {known.size} entries are not those that the checkpoint signs",
            why="an entry and its hash were changed, or the log was forked",
            fix="keep export and checkpoint, and notify the privacy officer",
        )
