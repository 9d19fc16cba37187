"""The sampler against its definition: each decision by exact fractions, all draws by their law."""

import itertools
import math
import os
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.numerics import discrete_gaussian
from protocols.numerics.discrete_gaussian import (
    DEEPEST,
    LARGEST_STD,
    THRESHOLDS,
    UNSURE,
    Proposals,
    Sampler,
)

WORDS = 2**64


def exp_minus(x: Fraction, terms: int = 400) -> Fraction:
    """Return e^(-x) to about 10^-90, by an independent series without a library."""
    halvings = max(0, math.ceil(x).bit_length())
    small = x / 2**halvings
    total = term = Fraction(1)
    for n in range(1, terms):
        term = -term * small / n
        if abs(term) < Fraction(1, 10**120):
            break
        total += term
    scale = 10**130
    value = Fraction(int(total * scale), scale)
    for _ in range(halvings):
        value = Fraction(int(value * value * scale), scale)
    return value


def weight(std: int, below: int, steps: int) -> Fraction:
    """Return the probability to accept u = `below`, v = `steps`, as the law requires.

    The proposal has probabilities ∝ e^(-v), and the law ∝ e^(-y²/(2σ²)).
    """
    magnitude = below + std * steps
    return exp_minus(Fraction(magnitude**2, 2 * std**2) + Fraction(1, 2) - steps)


class Scripted(Sampler):
    """A sampler whose further bits are given."""

    def __init__(self, more: Iterator[bytes]) -> None:
        super().__init__(os.urandom)
        self._more = more

    def _bytes(self, count: int) -> bytes:
        given = next(self._more)
        assert len(given) == count
        return given


def proposals(below: int, steps: int, word: int, *, negative: bool = False) -> Proposals:
    return Proposals(
        below=np.array([below], np.int64),
        steps=np.array([steps], np.int64),
        negative=np.array([negative]),
        usable=np.array([True]),
        deciding=np.array([word], np.uint64),
    )


def accepted(sampler: Sampler, std: int, below: int, steps: int, word: int) -> bool:
    return len(sampler.accepted(std, proposals(below, steps, word))) == 1


CASES = [
    *itertools.product([1, 3, 50], [0, 1, 2], [0, 1, 2, 5]),
    *itertools.product([2**30, LARGEST_STD], [0, 1, 2**29, 2**30 - 1], [0, 1, 7, 20]),
]


@pytest.mark.parametrize(("std", "below", "steps"), [c for c in CASES if c[1] < c[0]])
def test_each_proposal_is_accepted_with_the_probability_of_the_law(
    std: int, below: int, steps: int
) -> None:
    """To the last of the first 64 bits; on the edge the next bits decide."""
    chance = weight(std, below, steps)
    assert chance <= 1
    edge = min(int(chance * WORDS), WORDS - 1)
    never = Scripted(iter(()))
    for word in {edge - 1, edge - 2**20, 0} - {edge}:
        if 0 <= word < edge:
            assert accepted(never, std, below, steps, word)
    for word in {edge + 1, edge + 2**20, WORDS - 1} - {edge}:
        if edge < word < WORDS:
            assert not accepted(never, std, below, steps, word)
    rest = chance * WORDS - edge
    if Fraction(1, 1000) < rest < Fraction(999, 1000):
        assert accepted(Scripted(iter([bytes(32)])), std, below, steps, edge)
        assert not accepted(Scripted(iter([b"\xff" * 32])), std, below, steps, edge)


@given(
    std=st.integers(1, LARGEST_STD),
    steps=st.integers(0, 12),
    part=st.fractions(0, 1).filter(lambda f: f < 1),
    word=st.integers(0, WORDS - 1),
)
def test_floating_point_decides_only_if_it_is_right(
    std: int, steps: int, part: Fraction, word: int
) -> None:
    below = int(part * std)
    expected = Fraction(word, WORDS) < weight(std, below, steps)
    near = abs(Fraction(word, WORDS) - weight(std, below, steps)) < Fraction(1, 2**63)
    assert near or accepted(Sampler(os.urandom), std, below, steps, word) is expected


def test_no_proposal_has_a_probability_above_one() -> None:
    """The exponent is never negative: u/σ + (u + σv - σ)²/(2σ²) is a sum of nonnegative terms."""
    for std, below, steps in CASES:
        if below < std:
            assert weight(std, below, steps) <= 1


def test_every_tabulated_power_of_e_is_the_double_next_to_it() -> None:
    """The complete table against exact fractions; it is sorted, as its search requires."""
    assert len(THRESHOLDS) == DEEPEST
    assert (np.diff(THRESHOLDS) > 0).all()
    for index, stored in enumerate(THRESHOLDS.tolist()):
        exact = exp_minus(Fraction(DEEPEST - index))
        assert abs(Fraction(stored) - exact) <= Fraction(math.ulp(stored))


def test_values_beyond_the_table_are_never_decided_by_it() -> None:
    """Every number so small that its v might exceed DEEPEST is unsure, and computed exactly."""
    edge = UNSURE + float(THRESHOLDS[0])
    assert exp_minus(Fraction(DEEPEST)) < Fraction(UNSURE) / 1000
    words = np.array([0, 1, 2**8, 2**20, int(edge * WORDS) - 2**13], np.uint64)
    sampler = RecordingSampler(os.urandom)
    sampler.steps(words)
    assert sampler.words == words.tolist()


class RecordingSampler(Sampler):
    """A sampler that records the words about which it was not sure."""

    def __init__(self, entropy: discrete_gaussian.Entropy) -> None:
        super().__init__(entropy)
        self.words: list[int] = []

    def _exact_steps(self, word: int) -> int:
        self.words.append(word)
        return super()._exact_steps(word)


@pytest.mark.parametrize("steps", range(DEEPEST + 1))
@pytest.mark.parametrize("std", [1, 3, 1_000_003, LARGEST_STD])
def test_floating_point_is_as_accurate_as_stated(std: int, steps: int) -> None:
    """Below 2^-48 at every v, for u at the ends, near the sign change of w, and in between."""
    tried = {0, 1, std // 3, std // 2, std - 2, std - 1}
    belows = sorted(below for below in tried if 0 <= below < std)
    drawn = discrete_gaussian._rough_chances(std, many(belows, steps))
    for below, rough in zip(belows, drawn.tolist(), strict=True):
        assert abs(Fraction(rough) - weight(std, below, steps)) < Fraction(1, 2**48)


def many(belows: list[int], steps: int) -> Proposals:
    size = len(belows)
    return Proposals(
        below=np.array(belows, np.int64),
        steps=np.full(size, steps, np.int64),
        negative=np.zeros(size, np.bool_),
        usable=np.ones(size, np.bool_),
        deciding=np.zeros(size, np.uint64),
    )


@pytest.mark.parametrize("more", [1, 2, 3])
def test_a_number_near_a_probability_is_compared_with_more_and_more_bits(more: int) -> None:
    """The bits equal those of e^(-1); the precision grows with them until the answer is known."""
    bits = 64 + 256 * more
    edge = math.floor(exp_minus_finely(1, bits))
    pieces = [(edge >> 256 * (more - 1 - n)) % 2**256 for n in range(more)]
    given = iter([piece.to_bytes(32, "big") for piece in pieces])
    after = iter([bytes(32), b"\xff" * 32])
    word = edge >> 256 * more
    below, _ = Scripted(itertools.chain(given, after))._is_below((word, 64), Fraction(1))
    assert below
    given = iter([piece.to_bytes(32, "big") for piece in pieces])
    below, _ = Scripted(itertools.chain(given, iter([b"\xff" * 32])))._is_below(
        (word, 64), Fraction(1)
    )
    assert not below


def exp_minus_finely(x: int, bits: int) -> Fraction:
    """Return 2^bits · e^(-x), by its series, to some additional bits."""
    total = term = Fraction(1)
    for n in range(1, bits + 200):
        term = -term * x / n
        total += term
    return total * (1 << bits)


@pytest.mark.parametrize("steps", [*range(DEEPEST + 2), 42])
def test_steps_change_at_the_powers_of_e(steps: int) -> None:
    edge = int(exp_minus(Fraction(steps + 1)) * WORDS)
    words = np.array([edge - 1, edge + 1], np.uint64)
    more = itertools.repeat(b"\x80" + bytes(31))
    drawn = Scripted(more).steps(words)
    assert drawn.tolist() == [steps + 1, steps]


def test_a_number_that_begins_with_zeros_is_computed_exactly() -> None:
    (drawn,) = Scripted(iter([bytes(31) + b"\x01"])).steps(np.array([0], np.uint64))
    assert drawn == math.floor((64 + 256) * math.log(2))


def test_minus_zero_is_not_drawn_twice() -> None:
    assert len(Sampler(os.urandom).accepted(5, proposals(0, 0, 0, negative=True))) == 0
    assert len(Sampler(os.urandom).accepted(5, proposals(0, 0, 0))) == 1
    (drawn,) = Sampler(os.urandom).accepted(5, proposals(1, 0, 0, negative=True))
    assert drawn == -1


def test_surplus_words_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(os.urandom)
    top = np.full(1 << 10, WORDS - 1, np.uint64)
    monkeypatch.setattr(sampler, "_words", lambda count: top[:count])
    assert WORDS % 3 == 1, "one word is left over, the last"
    assert not sampler._proposals(3, 100).usable.any()
    assert sampler._proposals(4, 100).usable.all()


@pytest.mark.parametrize("std", [0, -1, LARGEST_STD + 1])
def test_widths_out_of_range_are_refused(std: int) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        Sampler(os.urandom).draw(std, 1)


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_as_many_values_are_drawn_as_requested(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete_gaussian, "PIECE", 64)
    drawn = Sampler(os.urandom).draw(10, size)
    assert drawn.dtype == np.int64
    assert drawn.shape == (size,)


def test_the_key_of_a_stream_comes_from_the_operating_system() -> None:
    requested: list[int] = []

    def entropy(size: int) -> bytes:
        requested.append(size)
        return bytes(range(size))

    first, second = (Sampler(entropy).draw(100, 50).tolist() for _ in range(2))
    assert requested == [32, 32]
    assert first == second
    assert Sampler(os.urandom).draw(100, 50).tolist() != first
