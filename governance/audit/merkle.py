"""The RFC 6962 Merkle tree: hashes, roots, proofs made and proofs verified. No storage.

Nodes are named (level, index): level 0 are leaf hashes, and (level, index) covers the leaves
index·2^level up to (index+1)·2^level. Only complete nodes are ever stored, so none changes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
ReadNode = Callable[[int, int], bytes]
"""(level, index) to the hash of a complete node."""


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry) (RFC 6962, section 2.1)."""
    raise NotImplementedError


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right) (RFC 6962, section 2.1)."""
    raise NotImplementedError


@dataclass(frozen=True)
class Node:
    """A complete subtree's hash and place."""

    level: int
    index: int
    hash: bytes


def completed_by(index: int, leaf: bytes, read: ReadNode) -> Iterator[Node]:
    """Yield the nodes above level 0 that the leaf at `index` completes, lowest first."""
    raise NotImplementedError
    yield


def root_at(size: int, read: ReadNode) -> bytes:
    """Return the root of the first `size` leaves; SHA-256 of nothing for 0."""
    raise NotImplementedError


def inclusion_proof(index: int, size: int, read: ReadNode) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` (RFC 6962, 2.1.1)."""
    raise NotImplementedError


def consistency_proof(size1: int, size2: int, read: ReadNode) -> list[bytes]:
    """Return the proof that the tree of `size1` is a prefix of `size2`'s (RFC 6962, 2.1.2)."""
    raise NotImplementedError


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Accept the leaf hash at `index` under `root`, or raise LogFault (RFC 9162, 2.1.3.2)."""
    raise NotImplementedError


def verify_consistency(
    size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]
) -> None:
    """Accept root1 as a prefix of root2, or raise LogFault (RFC 9162, 2.1.4.2).

    `size1` of 0 is refused: it would prove nothing.
    """
    raise NotImplementedError
