import os

import numpy as np
import pytest
from blake3 import blake3

from protocols.errors import Refusal
from protocols.numerics.packing import pack, unpack
from protocols.private_sum import shares
from protocols.private_sum.contribution import (
    MAX_HEAD_BYTES,
    commitments_digest,
    commitments_of,
    masked_words,
    open_share,
    read_head,
    seal_share,
    seed_key,
    shares_of_seed,
    words_digest,
)
from protocols.private_sum.masking import Masker
from protocols.private_sum.ratchet import mask_key
from protocols.proto.round_pb2 import PHASE_CONTRIBUTE, ContributionHead
from protocols.wire.signed_message import COORDINATOR, bind, serialise
from tests.unit.protocols.private_sum.test_context import ROUND

CONTEXT, KEY = ROUND.context, b"k" * 32
VALUES = np.arange(5, dtype=np.int64) - 2
LINKS = {pair: bytes([number]) * 32 for number, pair in enumerate(["AT-BE", "AT-CZ", "BE-CZ"])}


def links_of(country: str) -> dict[str, bytes]:
    """Return the chain values of a country, by the other country."""
    return {
        other: link
        for pair, link in LINKS.items()
        if country in pair
        for other in pair.split("-")
        if other != country
    }


def words_of(country: str, seed: bytes) -> np.ndarray:
    masks = {
        name: mask_key(link, CONTEXT, country, name) for name, link in links_of(country).items()
    }
    return masked_words(ROUND, country, seed, masks, VALUES, Masker(ROUND.words))


def test_masks_of_all_pairs_cancel_and_own_masks_can_be_removed() -> None:
    seeds = {country: country.encode() * 16 for country in ROUND.run.roster}
    total = np.stack([words_of(*each) for each in seeds.items()]).sum(axis=0, dtype=np.uint64)
    masker = Masker(ROUND.words)
    for country, seed in seeds.items():
        masker.subtract(seed_key(ROUND, country, seed), total)
    assert unpack(total, ROUND.lane_bits)[:5].tolist() == (3 * VALUES).tolist()
    assert not unpack(total, ROUND.lane_bits)[5:].any()


@pytest.mark.parametrize("country", ["AT", "BE", "CZ"])
def test_a_masked_vector_shows_nothing_while_one_mask_is_unknown(country: str) -> None:
    words, seed = words_of(country, b"s" * 32).copy(), b"s" * 32
    plain = pack(VALUES, ROUND.lane_bits, 9)
    assert not (words == plain).any()
    Masker(ROUND.words).subtract(seed_key(ROUND, country, seed), words)
    assert not (words == plain).any(), "pair masks still cover it"


def test_every_country_has_a_share_and_t_of_them_give_the_seed() -> None:
    seed = shares.draw_element(os.urandom)
    shared = shares_of_seed(ROUND, seed, os.urandom)
    assert tuple(shared) == ROUND.run.roster
    assert shares.combine(dict(enumerate(shared.values(), start=1))) == seed


def test_a_share_opens_for_its_holder_and_with_the_signed_seed_commitment_only() -> None:
    share, seed = b"\x01" * 32, b"\x05" * 32
    sealed = seal_share(CONTEXT, KEY, "AT", "BE", share, seed)
    assert open_share(CONTEXT, KEY, "AT", "BE", sealed, seed) == share
    assert open_share(CONTEXT, KEY, "AT", "CZ", sealed, seed) is None
    assert open_share(CONTEXT, KEY, "CZ", "BE", sealed, seed) is None
    assert open_share(bytes(32), KEY, "AT", "BE", sealed, seed) is None
    assert open_share(CONTEXT, b"o" * 32, "AT", "BE", sealed, seed) is None
    assert open_share(CONTEXT, KEY, "AT", "BE", sealed, bytes(32)) is None
    assert open_share(CONTEXT, KEY, "AT", "BE", sealed[:-1], seed) is None
    assert open_share(CONTEXT, KEY, "AT", "BE", b"", seed) is None


def test_commitments_are_of_one_owner_in_roster_order() -> None:
    shares_by_holder = {"AT": b"\x01" * 32, "BE": b"\x02" * 32}
    listed = commitments_of(CONTEXT, "AT", shares_by_holder)
    assert listed == b"".join(
        shares.commit(CONTEXT, "AT", one, shares_by_holder[one]) for one in shares_by_holder
    )
    other = commitments_of(CONTEXT, "AT", dict(reversed(shares_by_holder.items())))
    digests = {
        commitments_digest(CONTEXT, "AT", listed),
        commitments_digest(CONTEXT, "AT", other),
        commitments_digest(CONTEXT, "BE", listed),
        commitments_digest(bytes(32), "AT", listed),
    }
    assert len(digests) == 4


def test_a_head_that_is_too_long_is_refused() -> None:
    head = ContributionHead(words_digest=bytes(32))
    assert read_head(serialise(head)) == head
    with pytest.raises(Refusal):
        read_head(serialise(ContributionHead(words_digest=bytes(MAX_HEAD_BYTES))))


def test_words_leave_in_one_byte_order() -> None:
    words = words_of("AT", b"s" * 32)
    assert (words.dtype, words.shape) == (np.dtype("<u8"), (ROUND.words,))
    assert words.flags.c_contiguous


def test_a_words_digest_binds_their_blake3_hash_to_round_and_sender() -> None:
    words = words_of("AT", b"s" * 32)
    view = words.data.cast("B")
    expected = bind(CONTEXT, PHASE_CONTRIBUTE, "AT", COORDINATOR, blake3(words.tobytes()).digest())
    assert words_digest(ROUND, "AT", view) == words_digest(ROUND, "AT", bytes(view)) == expected


def test_digests_and_keys_depend_on_their_owner() -> None:
    for position in range(8):
        changed = bytearray(8)
        changed[position] = 1
        assert words_digest(ROUND, "AT", bytes(changed)) != words_digest(ROUND, "AT", bytes(8))
    assert words_digest(ROUND, "AT", b"w") != words_digest(ROUND, "BE", b"w")
    assert seed_key(ROUND, "AT", KEY) != seed_key(ROUND, "BE", KEY)
