import random

import numpy as np
import pytest

from protocols.numerics.noise import DiscreteGaussian, NoiseSource
from tests.support.zero_noise import ZeroNoise


@pytest.mark.parametrize(
    "source", [DiscreteGaussian(), ZeroNoise()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_source_returns_the_requested_number_of_64_bit_integers(
    source: NoiseSource, size: int
) -> None:
    drawn = source.draw(50, size)
    assert drawn.dtype == np.int64
    assert drawn.shape == (size,)


def test_two_draws_differ_even_when_other_generators_are_seeded() -> None:
    def drawn() -> list[int]:
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        noise: list[int] = DiscreteGaussian().draw(1000, 50).tolist()
        return noise

    assert drawn() != drawn()


def test_other_generators_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_use(*arguments: object, **named: object) -> None:
        raise AssertionError("privacy must not depend on this generator")

    for name in ("default_rng", "normal", "randint", "random", "Generator", "RandomState"):
        monkeypatch.setattr(np.random, name, refuse_use)
    for name in ("random", "gauss", "getrandbits", "randrange", "SystemRandom"):
        monkeypatch.setattr(random, name, refuse_use)
    assert DiscreteGaussian().draw(50, 100).any()


@pytest.mark.parametrize("std", [3, 100, 2**30])
def test_draws_are_about_as_wide_as_requested(std: int) -> None:
    """False alarms below 2^-60: 500 draws, none beyond 12 deviations, not all within one half."""
    drawn = np.abs(DiscreteGaussian().draw(std, 500))
    assert drawn.max() <= 12 * std
    assert drawn.max() > std / 2


def test_low_bits_are_uniform() -> None:
    """A rounded float sampler shows in the low bits; 4000 draws, 8 deviations."""
    odd = int((DiscreteGaussian().draw(10_000, 4000) & 1).sum())
    assert abs(odd - 2000) < 8 * 32


def test_no_part_of_a_large_draw_repeats_another() -> None:
    drawn = DiscreteGaussian().draw(10**6, 100_000)
    assert len({tuple(part) for part in drawn.reshape(10_000, 10).tolist()}) == 10_000
    assert 0.8e6 < drawn.std() < 1.2e6
