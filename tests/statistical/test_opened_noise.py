"""Noise in an opened sum has the claimed law: |U| shares of variance σ²/h, no more.

Through the complete protocol, with drop-outs. Every test fails wrongly with probability 1e-9.
"""

import math
import random
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chi2

from protocols.numerics.mechanism import Mechanism
from protocols.numerics.noise import DiscreteGaussian, NoiseSource
from protocols.numerics.rounding import round_contributions
from protocols.private_sum.coordinator_round import OpenedSum
from tests.support.protocol_world import MODEL, TRAIN, ProtocolWorld

pytestmark = pytest.mark.statistical

FALSE_ALARM = 1e-9
DEVIATIONS = 6.2
DIMENSION, ROUNDS = 4_000, 25
CASES = [(2, 0, 2, 2), (4, 1, 2, 4), (4, 1, 2, 3), (6, 1, 4, 6), (6, 1, 4, 5), (6, 2, 3, 5)]
"""Number of countries n, colluding c, honest h, and the size of U."""


def mechanism(std: int) -> Mechanism:
    return TRAIN.model_copy(
        update={"dimension": DIMENSION, "rounds": ROUNDS, "noise_std": std, "scale": 64}
    )


class Noisy:
    """A run in which countries contribute their values with the noise of a given source."""

    def __init__(self, n: int, c: int, h: int, std: int, source: NoiseSource) -> None:
        release = mechanism(std)
        self.world = ProtocolWorld.ready(n, colluding=c, honest=h, mechanisms=(release,))
        self.std, self.source = std, source
        self.shares: dict[str, list[NDArray[np.int64]]] = {}

    def opened(self, number: int, among: Sequence[str]) -> OpenedSum:
        begun = self.world.coordinator.begin_round(number, "train", MODEL)
        for index, country in enumerate(among):
            values = np.full(DIMENSION, 10 * index - 7, np.int64)
            noise = self.source.draw(self.std, DIMENSION)
            self.shares.setdefault(country, []).append(noise)
            self.world.contribute(begun, country, values, noise)
        result = self.world.finish_round(begun)
        assert isinstance(result, OpenedSum)
        return result

    def noise(self, size: int) -> NDArray[np.int64]:
        """Return the sums without the values, in the shape (rounds · dimension,)."""
        among = self.world.terms.roster[:size]
        values = sum(10 * index - 7 for index in range(size))
        sums = [self.opened(number, among) for number in range(1, ROUNDS + 1)]
        assert {opened_sum.countries for opened_sum in sums} == {among}
        assert {opened_sum.variance for opened_sum in sums} == {size * self.std**2}
        return np.concatenate([opened_sum.values - values for opened_sum in sums])


def law(std: int, shares: int) -> NDArray[np.float64]:
    """Return the exact law of a sum of shares around the mean, by its definition."""
    points = np.arange(-14 * std, 14 * std + 1)
    share = np.exp(-(points**2) / (2 * std**2))
    return reduce(np.convolve, [share / math.fsum(share)] * shares)


def follows(drawn: NDArray[np.int64], std: int, shares: int) -> bool:
    """Return whether the noise passes a χ² test against the exact law, with the tails together."""
    exact, size, reach = law(std, shares), drawn.size, math.ceil(3 * std * math.sqrt(shares))
    middle = len(exact) // 2
    expected = exact[middle - reach : middle + reach + 1] * size
    inside = drawn[np.abs(drawn) <= reach] + reach
    counts = np.bincount(inside, minlength=2 * reach + 1)
    tail = size - expected.sum()
    statistic = ((counts - expected) ** 2 / expected).sum() + (
        size - inside.size - tail
    ) ** 2 / tail
    return bool(statistic < chi2.isf(FALSE_ALARM, 2 * reach + 1))


@pytest.mark.parametrize(("n", "c", "h", "size"), CASES)
@pytest.mark.parametrize("std", [3, 40])
def test_the_opened_noise_has_the_law_of_as_many_shares_as_contributed(
    n: int, c: int, h: int, size: int, std: int
) -> None:
    run = Noisy(n, c, h, std, DiscreteGaussian())
    noise = run.noise(size)
    claimed = mechanism(std).variance(h)
    spread = noise.astype(np.float64).var()
    assert abs(spread / (size * claimed / h) - 1) < DEVIATIONS * math.sqrt(2 / noise.size)
    assert abs(noise.mean()) < DEVIATIONS * std * math.sqrt(size / noise.size)
    assert follows(noise, std, size)


def test_less_the_colluders_shares_the_honest_ones_are_left() -> None:
    """c = 2 of 6 subtract their shares from the sum over 5: three shares remain, as h states."""
    run = Noisy(6, 2, 3, 3, DiscreteGaussian())
    left = run.noise(5)
    for colluder in ("AT", "CZ"):
        left = left - np.concatenate(run.shares[colluder])
    assert follows(left, 3, 3)
    assert left.astype(np.float64).var() > 0.95 * mechanism(3).variance(3)


@pytest.mark.parametrize("value", [0, 1, 123_457])
def test_the_low_bits_of_an_opened_sum_reveal_nothing_about_the_values(value: int) -> None:
    """Floating-point noise leaves traces there (Mironov 2012); here the last six bits are uniform.

    At a width of 300 units the exact law is uniform far below what χ² could detect.
    """
    run = Noisy(2, 0, 2, 300, DiscreteGaussian())
    opened = run.noise(2) + value
    counts = np.bincount(opened & 63, minlength=64)
    expected = opened.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, 63)


def test_seeding_every_other_generator_changes_nothing() -> None:
    """Two runs with the same seeds differ: noise, rounding and masks do not depend on them."""

    def sent() -> list[bytes]:
        random.seed(11)
        np.random.seed(11)  # noqa: NPY002
        torch.manual_seed(11)
        run = Noisy(2, 0, 2, 300, DiscreteGaussian())
        begun = run.world.coordinator.begin_round(1, "train", MODEL)
        vectors = np.full((50, DIMENSION), 0.3 / math.sqrt(DIMENSION))
        rounded = round_contributions(vectors, mechanism(300))
        noise = run.source.draw(300, DIMENSION)
        request = begun.contribute_request("AT")
        words = run.world.countries["AT"].contribute(request, rounded, noise)
        return [rounded.tobytes(), noise.tobytes(), words]

    assert all(one != other for one, other in zip(sent(), sent(), strict=True))


class Lazy:
    """A source that draws a share of half the width, or none in some coordinates."""

    def __init__(self, std_part: float, fraction: float) -> None:
        self.part, self.kept = std_part, fraction

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        drawn = DiscreteGaussian().draw(max(1, round(std * self.part)), size)
        return np.where(np.arange(size) < self.kept * size, drawn, 0)


@pytest.mark.parametrize(("part", "fraction"), [(0.5, 1.0), (0.95, 1.0), (1.0, 0.98)])
def test_noise_that_is_less_than_claimed_is_detected(part: float, fraction: float) -> None:
    assert not follows(Noisy(4, 1, 2, 40, Lazy(part, fraction)).noise(4), 40, 4)


def test_a_rounded_continuous_gaussian_is_detected() -> None:
    """Its law is near: its variance is 1/12 of a unit too large in every share."""
    draw = np.random.default_rng(1)
    rounded = (np.rint(draw.normal(0, 3, 10**7)).astype(np.int64) for _ in range(2))
    assert not follows(sum(rounded, np.zeros(10**7, np.int64)), 3, 2)
