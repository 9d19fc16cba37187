"""The RFC 6962 Merkle tree: compute hashes and roots, build and verify proofs. No storage.

A node is named (level, index). Level 0 holds the leaf hashes; (level, index) covers the leaves
index·2^level up to (index + 1)·2^level. Only complete nodes are read, and these never change.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from governance.errors import LogFault

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
ReadNode = Callable[[int, int], bytes]
"""Returns the hash of the complete node (level, index)."""


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry) (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right) (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Node:
    """The hash and the position of a complete subtree."""

    level: int
    index: int
    hash: bytes


def completed_by(index: int, leaf: bytes, read: ReadNode) -> Iterator[Node]:
    """Yield the nodes above level 0 that the leaf at `index` completes, lowest first."""
    level, subtree_hash = 0, leaf
    while index & 1:
        subtree_hash = node_hash(read(level, index - 1), subtree_hash)
        level, index = level + 1, index >> 1
        yield Node(level, index, subtree_hash)


@dataclass
class Frontier:
    """The complete subtrees of a growing tree: enough for its root, in O(log n) memory."""

    size: int = 0
    _hashes: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, size: int, read: ReadNode) -> Self:
        """Return the frontier of the first `size` leaves of a stored tree."""
        return cls(size, _subtrees(size, read))

    def copy(self) -> Self:
        """Return a frontier that grows by itself."""
        return type(self)(self.size, list(self._hashes))

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        full = self.size
        while full & 1:
            leaf, full = node_hash(self._hashes.pop(), leaf), full >> 1
        self._hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return _fold(self._hashes)


def root_at(size: int, read: ReadNode) -> bytes:
    """Return the root of the first `size` leaves; SHA-256 of nothing for 0."""
    return _fold(_subtrees(size, read))


def _subtrees(size: int, read: ReadNode) -> list[bytes]:
    """Return the complete subtrees of the first `size` leaves, largest first."""
    levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
    return [read(level, (size >> level) - 1) for level in levels]


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join subtrees, largest first, into one root."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def inclusion_proof(index: int, size: int, read: ReadNode) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise LogFault(f"A log of {size} entries has no entry {index}")
    return _path(index, 0, size, read)


def _path(index: int, start: int, end: int, read: ReadNode) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, read), _range_root(middle, end, read)]
    return [*_path(index, middle, end, read), _range_root(start, middle, read)]


def consistency_proof(size1: int, size2: int, read: ReadNode) -> list[bytes]:
    """Return the proof that the tree of `size1` is a prefix of `size2`'s (RFC 6962, 2.1.2)."""
    if not 0 < size1 <= size2:
        raise LogFault(f"A log of {size2} entries does not continue one of {size1}")
    return _prefix_path(size1, 0, size2, read, shown=False)


def _prefix_path(size: int, start: int, end: int, read: ReadNode, *, shown: bool) -> list[bytes]:
    """SUBPROOF of the RFC; `shown` is the opposite of its flag b: whether to list this root."""
    if size == end:
        return [_range_root(start, end, read)] if shown else []
    middle = start + _split(end - start)
    if size <= middle:
        inner = _prefix_path(size, start, middle, read, shown=shown)
        return [*inner, _range_root(middle, end, read)]
    inner = _prefix_path(size, middle, end, read, shown=True)
    return [*inner, _range_root(start, middle, read)]


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _range_root(start: int, end: int, read: ReadNode) -> bytes:
    """Return the root of leaves start ≤ i < end; the RFC's ranges begin at the start of a node."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return read(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range_root(start, middle, read), _range_root(middle, end, read))


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Verify that `leaf` is at `index` under `root`. Raises LogFault (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise _refused("the entry is outside the tree")
    _require_hashes(leaf, root, *proof)
    walk = _Walk(index, size - 1)
    for sibling in proof:
        leaf = node_hash(sibling, leaf) if walk.step() else node_hash(leaf, sibling)
    walk.require_end()
    _require_equal(leaf, root)


def verify_consistency(
    size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]
) -> None:
    """Verify that the tree of root2 continues that of root1 (RFC 9162, 2.1.4.2).

    Raises LogFault if not, and for a `size1` of 0, which would prove nothing.
    """
    if not 0 < size1 <= size2:
        raise _refused("the first tree is empty or larger than the second")
    if size1 == size2:
        _require_same(root1, root2, proof)
        return
    _require_hashes(root1, root2, *proof)
    if not proof:
        raise _refused("the proof is empty")
    walk = _Walk(size1 - 1, size2 - 1)
    walk.climb_while_right()
    is_power_of_two = size1 & (size1 - 1) == 0
    path = [root1, *proof] if is_power_of_two else list(proof)
    _require_equal(*_replay(walk, path, root1, root2))


def _require_same(root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    if proof:
        raise _refused("both trees have the same size, so the proof must be empty")
    _require_equal(root1, root2)


def _replay(
    walk: "_Walk", path: Sequence[bytes], root1: bytes, root2: bytes
) -> tuple[bytes, bytes]:
    """Return the two roots that the proof yields, joined, and the two expected, joined."""
    first = second = path[0]
    for sibling in path[1:]:
        if walk.step():
            first, second = node_hash(sibling, first), node_hash(sibling, second)
        else:
            second = node_hash(second, sibling)
    walk.require_end()
    return first + second, root1 + root2


@dataclass
class _Walk:
    """The path up from the leaf `at`, and from the `last` leaf (fn and sn in RFC 9162)."""

    at: int
    last: int

    def step(self) -> bool:
        """Go up past one sibling; return whether the sibling is on the left."""
        if self.last == 0:
            raise _refused("the proof is too long")
        left = self.at & 1 == 1 or self.at == self.last
        if left:
            while self.at and not self.at & 1:
                self._up()
        self._up()
        return left

    def climb_while_right(self) -> None:
        while self.at & 1:
            self._up()

    def require_end(self) -> None:
        if self.last != 0:
            raise _refused("the proof is too short")

    def _up(self) -> None:
        self.at, self.last = self.at >> 1, self.last >> 1


def _require_hashes(*hashes: bytes) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise _refused("a hash is not 32 bytes long")


def _require_equal(computed: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(computed, expected):
        raise _refused("it leads to another root")


def _refused(why: str) -> LogFault:
    return LogFault("A proof of the log is not valid", why=why)
