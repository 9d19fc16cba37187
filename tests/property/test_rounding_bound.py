"""The two branches of the rounding bound against exact arithmetic, and the effect of conditioning.

The proof is in `protocols.numerics.rounding`. Here the law of a rounded norm is computed
completely, by adding up all ways to round, so that the test does not depend on chance.
"""

import itertools
import math
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.numerics import rounding
from protocols.numerics.mechanism import ROUNDING_BETA, Mechanism
from protocols.numerics.rounding import MAX_DRAWS, round_each
from tests.support.examples import examples

COORDINATES = st.lists(
    st.fractions(0, 40, max_denominator=16) | st.just(Fraction(1, 2)), min_size=1, max_size=9
)


def mechanism(dimension: int, scale: int = 16, clip_norm: float = 1.0) -> Mechanism:
    return Mechanism(
        phase="train",
        rounds=1,
        dimension=dimension,
        clip_norm=clip_norm,
        scale=scale,
        noise_std=3,
        patients_bound=1000,
    )


def norm_distribution(vector: list[Fraction]) -> dict[int, Fraction]:
    """Return the probability of every squared norm that rounding `vector` may give."""
    chances = {0: Fraction(1)}
    for value in vector:
        low = math.floor(value)
        ways = [(low**2, 1 - (value - low)), ((low + 1) ** 2, value - low)]
        sums: dict[int, Fraction] = {}
        for (norm, chance), (square, part) in itertools.product(chances.items(), ways):
            sums[norm + square] = sums.get(norm + square, Fraction(0)) + chance * part
        chances = sums
    return chances


def root_above(square: Fraction) -> float:
    return math.sqrt(square) * (1 + 1e-12)


@settings(deadline=None, max_examples=examples(300))
@given(COORDINATES)
def test_no_way_to_round_is_longer_than_the_first_branch(vector: list[Fraction]) -> None:
    reach = root_above(sum((v**2 for v in vector), Fraction(0)))
    longest = max(norm for norm, chance in norm_distribution(vector).items() if chance)
    assert longest <= (reach + math.sqrt(len(vector))) ** 2 * (1 + 1e-12)


@settings(deadline=None, max_examples=examples(300))
@given(COORDINATES, st.sampled_from([0.01, 0.2, ROUNDING_BETA, 0.95]))
def test_the_second_branch_is_exceeded_with_probability_beta_at_most(
    vector: list[Fraction], beta: float
) -> None:
    d, reach = len(vector), root_above(sum((v**2 for v in vector), Fraction(0)))
    slack = math.sqrt(2 * math.log(1 / beta))
    bound = reach**2 + d / 4 + slack * (reach + math.sqrt(d) / 2)
    chances = norm_distribution(vector)
    mean = sum(norm * chance for norm, chance in chances.items())
    assert mean <= reach**2 + d / 4
    assert sum(chance for norm, chance in chances.items() if norm > bound) <= beta


@given(st.integers(1, 10**6), st.floats(0, 1e6))
def test_at_this_beta_the_second_branch_is_the_smaller(dimension: int, reach: float) -> None:
    often = reach**2 + dimension / 4 + reach + math.sqrt(dimension) / 2
    assert math.isclose(math.sqrt(2 * math.log(1 / ROUNDING_BETA)), 1)
    assert often <= (reach + math.sqrt(dimension)) ** 2


def worst(dimension: int, scale: int) -> dict[str, NDArray[np.float64]]:
    """Return vectors whose norms rounding increases as much as it can."""
    ones = np.ones(dimension)
    half = (np.floor(scale / math.sqrt(dimension)) + 0.5) / scale
    # As many coordinates of one half as fit within the norm.
    most_halves = min(dimension, 4 * scale**2)
    alternating = np.where(np.arange(dimension) % 2, -half, half)
    return {
        "at the norm": ones / math.sqrt(dimension),
        "every coordinate at one half": alternating * min(1, 1 / (half * math.sqrt(dimension))),
        "halves and zeros": np.where(np.arange(dimension) < most_halves, 0.5 / scale, 0.0),
        "far beyond the norm": ones * 1e300,
        "one coordinate": np.eye(1, dimension).reshape(-1),
        "just beyond whole numbers": (np.floor(scale / math.sqrt(dimension)) + 1e-9) / scale * ones,
    }


SHAPES = [(1, 3), (40, 16), (5_000, 50), (20_000, 9)]


@pytest.mark.parametrize("name", worst(1, 1))
@pytest.mark.parametrize(("dimension", "scale"), SHAPES)
def test_a_draw_is_within_the_bound_with_the_probability_that_beta_gives(
    name: str, dimension: int, scale: int
) -> None:
    """The threshold is 6.5 deviations of so many draws below 1 - β: false alarms under 1e-10."""
    terms, draws = mechanism(dimension, scale), min(2_000, 2_000_000 // dimension)
    vectors = np.tile(worst(dimension, scale)[name], (draws, 1))
    scaled = rounding._clip(vectors, terms.clip_norm) * scale
    within = rounding._within(rounding._round_at_random(scaled, os.urandom), terms)
    assert within.mean() > 1 - ROUNDING_BETA - 6.5 * math.sqrt(0.24 / draws)


@pytest.mark.parametrize("name", worst(1, 1))
@pytest.mark.parametrize(("dimension", "scale"), SHAPES)
def test_every_patient_is_within_the_bound_and_none_is_dropped(
    name: str, dimension: int, scale: int
) -> None:
    """A patient is dropped after 64 draws beyond the bound: a probability below 2·10^-14."""
    assert ROUNDING_BETA**MAX_DRAWS < 2e-14
    vector, terms = worst(dimension, scale)[name], mechanism(dimension, scale)
    rounded = round_each(np.tile(vector, (4, 1)), terms)
    squares = [sum(int(v) ** 2 for v in row) for row in rounded]
    assert max(squares) <= terms.squared_sensitivity
    if np.abs(vector * scale).max() >= 1:
        assert rounded.any(axis=1).all()


@pytest.mark.parametrize("name", worst(1, 1))
@pytest.mark.parametrize(("dimension", "scale"), SHAPES)
def test_no_patient_is_beyond_the_bound_even_in_the_least_likely_case(
    name: str, dimension: int, scale: int
) -> None:
    """Every coordinate is rounded outward 63 times, which no proof about probabilities excludes."""
    vector, terms = worst(dimension, scale)[name], mechanism(dimension, scale)
    sources = itertools.chain([bytes] * (MAX_DRAWS - 1), itertools.repeat(os.urandom))

    def outward(size: int) -> bytes:
        return next(sources)(size)

    rounded = round_each(vector[None, :], terms, entropy=outward)
    assert sum(int(v) ** 2 for v in rounded[0]) <= terms.squared_sensitivity


def test_rounding_outward_is_beyond_it() -> None:
    """Check the premise of the test above: forty coordinates of 2.5 rounded to 3 are too long."""
    terms, vector = mechanism(40, 16), worst(40, 16)["every coordinate at one half"]
    outward = rounding._round_at_random(vector[None, :] * 16, bytes)
    assert not rounding._within(outward, terms).any()
