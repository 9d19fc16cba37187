"""Noise against its exact law; rounding and sampling against their expectations.

Each test states the probability of a false alarm.
"""

import math

import numpy as np
import opendp.prelude as dp
import pytest
from scipy.stats import chi2

from protocols.numerics.mechanism import Mechanism
from protocols.numerics.noise import DiscreteGaussian
from protocols.numerics.rounding import poisson_sample, round_each

FALSE_ALARM = 1e-9
DEVIATIONS = 6.5
"""A normal value exceeds this with probability 8e-11."""

pytestmark = pytest.mark.statistical


def masses(std: int, reach: int) -> np.ndarray:
    """Return the probabilities of -reach..reach under the discrete Gaussian, by its definition."""
    weights = [math.exp(-(v**2) / (2 * std**2)) for v in range(-20 * std, 20 * std + 1)]
    middle = 20 * std
    return np.array(weights[middle - reach : middle + reach + 1]) / math.fsum(weights)


@pytest.mark.parametrize("std", [1, 3, 4, 10, 50])
def test_draws_follow_the_exact_law(std: int) -> None:
    """Pearson's χ² over single values, with the tails together.

    At a width of 1, narrower than any release, a rounded continuous Gaussian is detected with
    certainty.
    """
    size, reach = 4_000_000, 3 * std
    drawn = DiscreteGaussian().draw(std, size)
    expected = masses(std, reach) * size
    inside = drawn[np.abs(drawn) <= reach] + reach
    counts = np.bincount(inside, minlength=2 * reach + 1)
    tails = (size - inside.size, size - expected.sum())
    statistic = ((counts - expected) ** 2 / expected).sum() + (tails[0] - tails[1]) ** 2 / tails[1]
    assert statistic < chi2.isf(FALSE_ALARM, 2 * reach + 1)


@pytest.mark.parametrize("std", [3, 20])
def test_draws_have_the_distribution_of_another_exact_sampler(std: int) -> None:
    """OpenDP's sampler shares no line with ours; χ² of two samples over single values."""
    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    theirs = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=float(std))
    size, reach = 200_000, 3 * std
    pair = DiscreteGaussian().draw(std, size), np.array(theirs([0] * size))
    counts = [
        np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
        for draws in pair
    ]
    statistic = ((counts[0] - counts[1]) ** 2 / np.maximum(counts[0] + counts[1], 1)).sum()
    assert statistic < chi2.isf(FALSE_ALARM, 2 * reach)


@pytest.mark.parametrize("std", [3, 1000, 2**20, 2**40])
def test_mean_and_variance_are_those_of_the_law(std: int) -> None:
    size = 1_000_000
    drawn = DiscreteGaussian().draw(std, size).astype(np.float64)
    assert abs(drawn.mean()) < DEVIATIONS * std / math.sqrt(size)
    assert abs(drawn.var() / std**2 - 1) < DEVIATIONS * math.sqrt(2 / size)


def test_the_noise_of_honest_countries_adds_up() -> None:
    """Three shares of σ/√h make the variance that the accountant counts on."""
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=1,
        clip_norm=1,
        scale=10,
        noise_std=40,
        patients_bound=10,
    )
    size = 100_000
    total = sum(DiscreteGaussian().draw(mechanism.noise_std, size) for _ in range(3))
    spread = np.asarray(total, np.float64).var() / mechanism.variance(3)
    assert abs(spread - 1) < DEVIATIONS * math.sqrt(2 / size)


def test_draws_do_not_depend_on_the_one_before() -> None:
    drawn = DiscreteGaussian().draw(20, 100_000).astype(np.float64)
    correlation = float(np.corrcoef(drawn[:-1], drawn[1:])[0, 1])
    assert abs(correlation) < DEVIATIONS / math.sqrt(drawn.size)


def test_rounding_has_no_bias_if_nothing_is_drawn_again() -> None:
    """A short vector never exceeds the bound; the mean of each coordinate is its scaled value."""
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=4,
        clip_norm=10,
        scale=7,
        noise_std=3,
        patients_bound=10,
    )
    vector, size = np.array([0.01, -0.5, 1.234, -2.999]), 200_000
    rounded = round_each(np.tile(vector, (size, 1)), mechanism)
    scaled = vector * 7
    chance = scaled - np.floor(scaled)
    errors = np.sqrt(chance * (1 - chance) / size)
    assert (np.abs(rounded.mean(axis=0) - scaled) < DEVIATIONS * errors + 1e-9).all()
    assert set(np.unique(rounded[:, 0])) == {0, 1}


def test_conditioning_biases_by_less_than_the_paper_allows() -> None:
    """Kairouz, Liu, Steinke 2021, Section 4.1: the vector's bias is at most β√d/(1 − β) steps.

    The vector has full length, the worst case for rejection.
    """
    dimension, size = 16, 100_000
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=dimension,
        clip_norm=1,
        scale=50,
        noise_std=3,
        patients_bound=10,
    )
    vector = np.full(dimension, 1 / math.sqrt(dimension))
    rounded = round_each(np.tile(vector, (size, 1)), mechanism)
    assert (np.square(rounded).sum(axis=1) <= mechanism.squared_sensitivity).all()
    bias = np.linalg.norm(rounded.mean(axis=0) - vector * 50)
    beta = math.exp(-0.5)
    chance_error = DEVIATIONS * math.sqrt(dimension / (4 * size))
    assert bias < beta * math.sqrt(dimension) / (1 - beta) + chance_error


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.999])
def test_samples_have_the_mean_size_and_variance_of_the_rate(rate: float) -> None:
    people, repeats = 10_000, 400
    sizes = np.array([int(poisson_sample(people, rate).sum()) for _ in range(repeats)])
    spread = math.sqrt(people * rate * (1 - rate))
    assert abs(sizes.mean() - people * rate) < DEVIATIONS * spread / math.sqrt(repeats)
    assert 0.6 < sizes.std() / spread < 1.5, "a fixed size would not be a Poisson sample"
