"""One country's contribution to one round: packed and masked words, and shares of its seed.

    y_i = x_i + noise_i + PRG(b_i) + Σ_{j>i} PRG(s_ij) − Σ_{j<i} PRG(s_ij)

x_i: the values, b_i: the country's own seed, s_ij: the key of the pair. All are whole words, after
packing (Bonawitz et al. 2017, Section 4, for the double mask).
"""

from collections.abc import Mapping

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from keys.derive import derive_key, labelled_hash
from keys.errors import KeyFault
from keys.sealing import open_sealed, seal
from protocols.numerics.mechanism import CHECK_COORDINATES
from protocols.numerics.packing import pack
from protocols.private_sum import shares
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.masking import WORDS_DTYPE, Masker
from protocols.proto.round_pb2 import PHASE_CONTRIBUTE, ContributionHead
from protocols.wire.signed_message import (
    COORDINATOR,
    ROSTER,
    bind,
    parse,
)

SEED_LABEL = "pratique/seed/v1"
COMMITMENTS_LABEL = "pratique/commitments/v1"
MAX_HEAD_BYTES = 1 << 16
"""64 KiB. The document versions sent with a head have the same limit. Every country receives the
heads and versions of all countries."""


def seed_key(terms: RoundTerms, owner: str, seed: bytes) -> bytes:
    """Return the key of the owner's own mask, PRG(b_i), in this round."""
    return derive_key(seed, SEED_LABEL, bind(terms.context, PHASE_CONTRIBUTE, owner, ROSTER))


def masked_words(
    terms: RoundTerms,
    owner: str,
    seed: bytes,
    pair_keys: Mapping[str, bytes],
    values: NDArray[np.int64],
    masker: Masker,
) -> NDArray[np.uint64]:
    """Return `values` (d,) and the check coordinates, packed and masked: the words to send.

    `seed` is the owner's. `pair_keys` maps each other country to the key of their common mask.
    """
    words = pack(values, terms.lane_bits, values.size + CHECK_COORDINATES)
    masker.add(seed_key(terms, owner, seed), words)
    for peer, key in pair_keys.items():
        apply = masker.add if peer > owner else masker.subtract
        apply(key, words)
    return words.astype(WORDS_DTYPE, copy=False)


def words_digest(terms: RoundTerms, owner: str, words: bytes | memoryview) -> bytes:
    """Return the digest of an owner's masked words.

    The words are hashed with BLAKE3, which is faster than SHA-256. The digest ensures that the
    coordinator adds the words that were signed; no mask or key depends on it.
    """
    body = blake3(words).digest()
    return bind(terms.context, PHASE_CONTRIBUTE, owner, COORDINATOR, body)


def shares_of_seed(terms: RoundTerms, seed: bytes, entropy: shares.Entropy) -> dict[str, bytes]:
    """Return a share of the seed for every country of the roster, its owner included."""
    roster = terms.run.roster
    return dict(
        zip(roster, shares.split(seed, terms.run.threshold, len(roster), entropy), strict=True)
    )


def commitments_of(context: bytes, owner: str, shares_by_holder: Mapping[str, bytes]) -> bytes:
    """Return the commitments to an owner's shares, 32 bytes each, in the order of the mapping."""
    return b"".join(
        shares.commit(context, owner, holder, share) for holder, share in shares_by_holder.items()
    )


def commitments_digest(context: bytes, owner: str, commitments: bytes) -> bytes:
    """Return the 32-byte digest of an owner's commitments, which its signed head holds."""
    return labelled_hash(COMMITMENTS_LABEL, context, owner.encode(), commitments)


def seal_share(
    context: bytes, key: bytes, owner: str, holder: str, share: bytes, seed_commitment: bytes
) -> bytes:
    """Return a share sealed for its holder, bound to the owner's signed seed commitment."""
    return seal(key, share, bind(context, PHASE_CONTRIBUTE, owner, holder, seed_commitment))


def open_share(
    context: bytes, key: bytes, owner: str, holder: str, sealed: bytes, seed_commitment: bytes
) -> bytes | None:
    """Return the share in `sealed`, or None if it does not open.

    Only the owner and the holder have the key; `seed_commitment` is what the owner signed.
    """
    binding = bind(context, PHASE_CONTRIBUTE, owner, holder, seed_commitment)
    try:
        return open_sealed(key, sealed, binding)
    except KeyFault:
        return None


def read_head(body: bytes) -> ContributionHead:
    """Return a contribution's head. Raises Refusal MALFORMED."""
    return parse(ContributionHead, body, MAX_HEAD_BYTES)
