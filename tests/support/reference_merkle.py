"""The Merkle tree hash of RFC 6962, as its text defines it, for comparison with ours."""

import hashlib


def reference_root(leaves: list[bytes]) -> bytes:
    """Return MTH of section 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    joined = reference_root(leaves[:k]) + reference_root(leaves[k:])
    return hashlib.sha256(b"\x01" + joined).digest()
