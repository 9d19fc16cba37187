import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    completed_by,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from governance.errors import LogFault
from tests.support.examples import examples
from tests.support.reference_merkle import reference_root

MOST = 70
LEAVES = [leaf_hash(str(n).encode()) for n in range(MOST)]


def grown(size: int) -> tuple[dict[tuple[int, int], bytes], Callable[[int, int], bytes]]:
    nodes: dict[tuple[int, int], bytes] = {}

    def read(level: int, index: int) -> bytes:
        return nodes[level, index]

    for index, leaf in enumerate(LEAVES[:size]):
        nodes[0, index] = leaf
        for node in completed_by(index, leaf, read):
            assert (node.level, node.index) not in nodes
            nodes[node.level, node.index] = node.hash
    return nodes, read


NODES, READ = grown(MOST)


def test_leaves_and_nodes_have_different_hashes() -> None:
    left, right = LEAVES[:2]
    assert node_hash(left, right) == hashlib.sha256(b"\x01" + left + right).digest()
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize("size", range(MOST))
def test_roots_are_those_of_the_rfc(size: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.add(leaf)
    expected = reference_root(LEAVES[:size])
    assert root_at(size, READ) == frontier.root() == expected
    assert frontier.size == size


def test_the_empty_tree_has_the_root_of_nothing() -> None:
    assert root_at(0, READ) == Frontier().root() == EMPTY_ROOT


def test_a_tree_holds_fewer_nodes_than_twice_its_leaves() -> None:
    assert len(NODES) < 2 * MOST


def test_an_append_reads_logarithmically_many_nodes() -> None:
    reads: list[tuple[int, int]] = []

    def counted(level: int, index: int) -> bytes:
        reads.append((level, index))
        return bytes(32)

    list(completed_by(2**40 - 1, bytes(32), counted))
    assert len(reads) == 40


@pytest.mark.parametrize("size", [*range(1, 20), 32, 33, 63, 64, MOST])
def test_every_inclusion_proof_verifies_at_its_index_only(size: int) -> None:
    root = root_at(size, READ)
    for index in range(size):
        proof = inclusion_proof(index, size, READ)
        verify_inclusion(index, size, LEAVES[index], proof, root)
        for elsewhere in {(index + 1) % size, (index + 2) % size} - {index}:
            with pytest.raises(LogFault):
                verify_inclusion(elsewhere, size, LEAVES[index], proof, root)


@pytest.mark.parametrize("size2", [*range(1, 20), 32, 33, 64, MOST])
def test_every_consistency_proof_verifies_and_no_other_size(size2: int) -> None:
    root2 = root_at(size2, READ)
    for size1 in range(1, size2 + 1):
        root1 = root_at(size1, READ)
        proof = consistency_proof(size1, size2, READ)
        verify_consistency(size1, root1, size2, root2, proof)
        with pytest.raises(LogFault):
            verify_consistency(size1, root_at(size1 - 1, READ), size2, root2, proof)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


sizes = st.integers(2, MOST)
bits = st.integers(0, 255)


@given(sizes, st.data(), bits)
@settings(max_examples=examples(150))
def test_a_changed_inclusion_proof_is_refused(size: int, data: st.DataObject, bit: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(index, size, READ), root_at(size, READ)
    position = data.draw(st.integers(0, len(proof) - 1))
    bad = [*proof[:position], flipped(proof[position], bit), *proof[position + 1 :]]
    swapped = list(reversed(proof))
    for wrong in (bad, proof[:-1], proof[1:], [*proof, root], [root, *proof], swapped):
        if wrong != proof:
            with pytest.raises(LogFault):
                verify_inclusion(index, size, LEAVES[index], wrong, root)
    with pytest.raises(LogFault):
        verify_inclusion(index, size, flipped(LEAVES[index], bit), proof, root)
    with pytest.raises(LogFault):
        verify_inclusion(index, size, LEAVES[index], proof, flipped(root, bit))


@given(sizes, st.data(), bits)
@settings(max_examples=examples(150))
def test_a_changed_consistency_proof_is_refused(size: int, data: st.DataObject, bit: int) -> None:
    earlier = data.draw(st.integers(1, size - 1))
    proof = consistency_proof(earlier, size, READ)
    root1, root2 = root_at(earlier, READ), root_at(size, READ)
    position = data.draw(st.integers(0, len(proof) - 1))
    bad = [*proof[:position], flipped(proof[position], bit), *proof[position + 1 :]]
    for wrong in (bad, proof[:-1], [*proof, root2], [root1, *proof], []):
        with pytest.raises(LogFault):
            verify_consistency(earlier, root1, size, root2, wrong)
    for roots in ((flipped(root1, bit), root2), (root1, flipped(root2, bit)), (root2, root1)):
        with pytest.raises(LogFault):
            verify_consistency(earlier, roots[0], size, roots[1], proof)


@pytest.mark.parametrize(("size1", "size2"), [(0, 0), (0, 5), (-1, 5), (6, 5)])
def test_consistency_from_nothing_or_backwards_is_refused(size1: int, size2: int) -> None:
    with pytest.raises(LogFault):
        verify_consistency(size1, EMPTY_ROOT, size2, root_at(max(size2, 0), READ), [])
    with pytest.raises(LogFault):
        consistency_proof(size1, size2, READ)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_an_entry_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(LogFault):
        inclusion_proof(index, size, READ)
    with pytest.raises(LogFault):
        verify_inclusion(index, size, LEAVES[0], [], LEAVES[0])


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)])
def test_hashes_of_another_length_are_refused(wrong: bytes) -> None:
    proof, root = inclusion_proof(1, 4, READ), root_at(4, READ)
    with pytest.raises(LogFault, match="32 bytes"):
        verify_inclusion(1, 4, LEAVES[1], [wrong, proof[1]], root)
    with pytest.raises(LogFault, match="32 bytes"):
        verify_inclusion(0, 1, wrong, [], wrong)
    with pytest.raises(LogFault, match="32 bytes"):
        verify_consistency(2, wrong, 3, wrong, [root])
