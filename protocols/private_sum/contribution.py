"""One country's contribution to one round: packed, masked, with its seed shared out, and signed.

    y_i = x_i + noise_i + PRG(b_i) + Σ_{j>i} PRG(s_ij) − Σ_{j<i} PRG(s_ij)

on whole words, after packing (Bonawitz et al. 2017, Section 4, for the double mask).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from keys.derive import derive_key
from keys.errors import KeyFault
from keys.sealing import open_sealed, seal
from protocols.lattice import pack
from protocols.mechanism import CHECK_COORDINATES
from protocols.private_sum import shares
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.masking import WORDS_DTYPE, Masker
from protocols.private_sum.ratchet import mask_key
from protocols.proto.round_pb2 import PHASE_CONTRIBUTE, ContributionHead
from protocols.signed import COORDINATOR, ROSTER, bind, malformed, parse

SEED_LABEL = "pratique/seed/v1"
LARGEST_HEAD = 1 << 16


def seed_key(terms: RoundTerms, owner: str, seed: bytes) -> bytes:
    """Return the key of the owner's own mask, PRG(b_i), in this round."""
    return derive_key(seed, SEED_LABEL, bind(terms.context, PHASE_CONTRIBUTE, owner, ROSTER))


def masked_words(
    terms: RoundTerms,
    owner: str,
    secrets: tuple[bytes, Mapping[str, bytes]],
    values: NDArray[np.int64],
    masker: Masker,
) -> bytes:
    """Return the words that leave: `values` (d,) and the check coordinates, packed and masked.

    `secrets` are the owner's seed and the pair's chain value for each other country.
    """
    seed, links = secrets
    words = pack(values, terms.lane_bits, values.size + CHECK_COORDINATES)
    masker.add(seed_key(terms, owner, seed), words)
    for peer, link in links.items():
        apply = masker.add if peer > owner else masker.subtract
        apply(mask_key(link, terms.context, owner, peer), words)
    return words.astype(WORDS_DTYPE, copy=False).tobytes()


def words_digest(terms: RoundTerms, owner: str, words: bytes) -> bytes:
    """Return the digest of an owner's masked words."""
    return bind(terms.context, PHASE_CONTRIBUTE, owner, COORDINATOR, words)


def share_out(terms: RoundTerms, seed: bytes, entropy: shares.Entropy) -> dict[str, bytes]:
    """Return a share of the seed for every country of the roster, its owner included."""
    roster = terms.run.roster
    return dict(
        zip(roster, shares.split(seed, terms.run.threshold, len(roster), entropy), strict=True)
    )


def seal_share(context: bytes, key: bytes, owner: str, holder: str, share: bytes) -> bytes:
    """Return the owner's share sealed for its holder, bound to the commitment to it."""
    commitment = shares.commit(context, owner, holder, share)
    return seal(key, share, bind(context, PHASE_CONTRIBUTE, owner, holder, commitment))


def open_share(
    context: bytes, key: bytes, owner: str, holder: str, sealed: bytes, commitment: bytes
) -> bytes | None:
    """Return the share in `sealed`, or None when it does not open or is not what was signed.

    `commitment` is what the owner signed for this holder.
    """
    try:
        share = open_sealed(key, sealed, bind(context, PHASE_CONTRIBUTE, owner, holder, commitment))
    except KeyFault:
        return None
    return share if shares.commit(context, owner, holder, share) == commitment else None


def read_head(body: bytes, countries: int) -> ContributionHead:
    """Return a contribution's head. Raises Refusal MALFORMED unless it commits to every share."""
    head = parse(ContributionHead, body, LARGEST_HEAD)
    if len(head.share_commitments) != countries:
        raise malformed("it does not commit to one share for each country")
    return head
