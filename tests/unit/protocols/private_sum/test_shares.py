import itertools
import os

import pytest

from protocols.errors import ProtocolFault
from protocols.private_sum.shares import (
    ELEMENT_BYTES,
    PRIME,
    combine,
    commit,
    draw_element,
    split,
)

CONTEXT = bytes(32)


def numbered(elements: list[bytes]) -> dict[int, bytes]:
    return dict(enumerate(elements, start=1))


def test_the_field_is_that_of_the_largest_256_bit_prime() -> None:
    assert PRIME.bit_length() == 256
    assert pow(2, PRIME - 1, PRIME) == 1
    assert pow(3, (PRIME - 1) // 2, PRIME) in (1, PRIME - 1)


@pytest.mark.parametrize(("threshold", "holders"), [(1, 1), (2, 2), (2, 3), (3, 4), (4, 6), (9, 9)])
def test_any_threshold_of_shares_gives_the_seed(threshold: int, holders: int) -> None:
    seed = draw_element(os.urandom)
    shares = numbered(split(seed, threshold, holders, os.urandom))
    for chosen in itertools.combinations(shares, threshold):
        assert combine({point: shares[point] for point in chosen}) == seed


def test_more_shares_than_the_threshold_give_the_seed_too() -> None:
    seed = draw_element(os.urandom)
    assert combine(numbered(split(seed, 2, 5, os.urandom))) == seed


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_one_share_fewer_fits_every_seed(threshold: int) -> None:
    """For any other seed some missing share would give it: nothing was learnt."""
    seed, other = draw_element(os.urandom), draw_element(os.urandom)
    shares = numbered(split(seed, threshold, threshold, os.urandom))
    del shares[threshold]
    target = int.from_bytes(other, "big")
    basis = combine({**shares, threshold: bytes(ELEMENT_BYTES)})
    weight = int.from_bytes(
        combine({**dict.fromkeys(shares, bytes(32)), threshold: (1).to_bytes(32, "big")}), "big"
    )
    missing = (target - int.from_bytes(basis, "big")) * pow(weight, -1, PRIME) % PRIME
    assert combine({**shares, threshold: missing.to_bytes(32, "big")}) == other


def test_a_known_polynomial() -> None:
    """Seed 7, coefficient 5: shares 12, 17, 22."""
    coefficients = iter([(5).to_bytes(32, "big")])
    shares = split((7).to_bytes(32, "big"), 2, 3, lambda _: next(coefficients))
    assert [int.from_bytes(share, "big") for share in shares] == [12, 17, 22]


def test_elements_outside_the_field_are_drawn_again() -> None:
    drawn = iter([b"\xff" * 32, PRIME.to_bytes(32, "big"), (PRIME - 1).to_bytes(32, "big")])
    assert draw_element(lambda _: next(drawn)) == (PRIME - 1).to_bytes(32, "big")


@pytest.mark.parametrize("bad", [b"", b"\x01" * 31, b"\x01" * 33, b"\xff" * 32])
def test_a_share_outside_the_field_is_refused(bad: bytes) -> None:
    with pytest.raises(ProtocolFault):
        combine({1: (1).to_bytes(32, "big"), 2: bad})


def test_a_commitment_fixes_context_owner_holder_and_value() -> None:
    commitments = {
        commit(context, owner, holder, element)
        for context in (CONTEXT, bytes([1]) * 32)
        for owner in ("AT", "BE")
        for holder in ("AT", "BE", "roster")
        for element in (bytes(32), bytes([1]) * 32)
    }
    assert len(commitments) == 2 * 2 * 3 * 2
