"""Factored rounding: exact integers, exact bounds, and no bias."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.numerics.factored_rounding import (
    SINGLE_EXACT,
    Factors,
    RoundedFactors,
    factored_scale,
    factored_sum,
    round_factors,
    squared_norms,
)
from protocols.numerics.keystream import Keystream
from protocols.numerics.mechanism import FURTHEST_FACTORED, Mechanism, Rounding

WIDTHS = (4, 6, 3)


def mechanism(widths: tuple[int, ...] = WIDTHS, *, clip: float = 1.0, scale: int = 0) -> Mechanism:
    sizes = [(n + 1) * m for n, m in itertools.pairwise(widths)]
    return Mechanism(
        phase="train",
        rounds=1,
        dimension=sum(sizes),
        clip_norm=clip,
        scale=scale or factored_scale(clip, widths),
        noise_std=3,
        patients_bound=1000,
        rounding=Rounding.FACTORED,
    )


def random_layers(patients: int, widths: tuple[int, ...] = WIDTHS, seed: int = 1) -> list[Factors]:
    draw = np.random.default_rng(seed)
    return [
        Factors(draw.normal(size=(patients, n)), draw.normal(size=(patients, m)))
        for n, m in itertools.pairwise(widths)
    ]


def gradients(layers: list[Factors]) -> NDArray[np.float64]:
    """Return full per-patient gradients, (patients, dimension), which the code never forms."""
    parts = []
    for layer in layers:
        outer = layer.returned[:, :, None] * layer.entered[:, None, :]
        parts += [outer.reshape(len(outer), -1), layer.returned]
    return np.concatenate(parts, axis=1)


class Fixed:
    """A source that returns the same fraction for every value."""

    def __init__(self, *fractions: float) -> None:
        self._fractions = itertools.chain(fractions, itertools.repeat(fractions[-1]))

    def fractions(self, size: int) -> NDArray[np.float64]:
        return np.full(size, next(self._fractions))


def exact_squares(layers: list[Factors], bound: Mechanism, words: object) -> list[int]:
    """Return each patient's squared norm from full products, in Python's integers."""
    rounded = round_factors(layers, bound, words)  # type: ignore[arg-type]
    squares = []
    for i in range(len(layers[0].entered)):
        total = 0
        for layer in rounded:
            entered = [int(v) for v in [*layer.entered[i], layer.ones[i]]]
            total += sum((a * int(d)) ** 2 for a in entered for d in layer.returned[i])
        squares.append(total)
    return squares


def test_the_closed_form_is_the_norm() -> None:
    layers = random_layers(20)
    full = (gradients(layers) ** 2).sum(axis=1)
    assert squared_norms(layers) == pytest.approx(full, rel=1e-12)


def test_the_scale_makes_rounding_cost_a_hundredth_at_most() -> None:
    bound = mechanism()
    assert bound.sensitivity == pytest.approx(1.01 * bound.scale, rel=1e-4)
    assert factored_scale(2.0, WIDTHS) == math.ceil(factored_scale(1.0, WIDTHS) / 2)
    assert factored_scale(1.0, (128, 1024, 1024, 1)) < 2**17


def test_a_lattice_too_fine_to_be_exact_is_refused() -> None:
    assert mechanism(scale=FURTHEST_FACTORED // 4)
    with pytest.raises(ValueError, match="not exact"):
        mechanism(clip=4.0, scale=FURTHEST_FACTORED // 4)


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_no_norm_exceeds_the_bound(size: float) -> None:
    layers = [Factors(draw.entered, size * draw.returned) for draw in random_layers(200)]
    squares = exact_squares(layers, mechanism(), Keystream(bytes_of(7)))
    assert max(squares) <= mechanism().squared_sensitivity
    assert min(squares) > 0


def test_most_draws_pass_even_at_the_clip_norm() -> None:
    """As the docstring of the module states: a third or more."""
    layers = [Factors(draw.entered, 30 * draw.returned) for draw in random_layers(400)]
    once = Counted(bytes_of(3))
    round_factors(layers, mechanism(), once)
    values = sum((n + 1 + m) for n, m in itertools.pairwise(WIDTHS)) * 400
    assert once.values < 3 * values


class Counted(Keystream):
    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        super().__init__(entropy)
        self.values = 0

    def fractions(self, size: int) -> NDArray[np.float64]:
        self.values += size
        return super().fractions(size)


def bytes_of(seed: int) -> Callable[[int], bytes]:
    draw = np.random.default_rng(seed)
    return draw.bytes


def test_the_sum_is_that_of_the_patients_integers() -> None:
    layers, bound = random_layers(50), mechanism()
    rounded = round_factors(layers, bound, Keystream(bytes_of(5)))
    expected = []
    for layer in rounded:
        entered = np.rint(layer.entered).astype(object)
        returned = np.rint(layer.returned).astype(object)
        expected += [*(returned.T @ entered).reshape(-1), *(returned.T @ layer.ones.astype(int))]
    total = factored_sum(layers, bound, entropy=bytes_of(5))
    assert total.dtype == np.int64
    assert total.tolist() == [int(value) for value in expected]


@pytest.mark.parametrize("over", [-1.0, 0.0, 0.01, 1.5])
def test_sums_are_exact_in_either_precision(over: float) -> None:
    """Each patient at the bound: single precision would lose the last digit of the larger sums."""
    bound = mechanism((1, 1))
    furthest = (math.isqrt(bound.squared_sensitivity) - 1) | 1
    patients = int((1 + over) * SINGLE_EXACT / furthest) | 1
    whole = np.full((patients, 1), float(furthest))
    layer = RoundedFactors(whole, np.ones(patients), np.ones((patients, 1)))
    weights, biases = layer.sums(bound)
    assert int(weights[0]) == patients * furthest
    assert int(biases[0]) == patients


def test_gradients_below_the_clip_norm_are_unchanged_except_for_rounding() -> None:
    layers = [Factors(draw.entered, 0.01 * draw.returned) for draw in random_layers(3000)]
    bound = mechanism()
    assert (squared_norms(layers) < 1).all()
    total = factored_sum(layers, bound, entropy=bytes_of(11)) / bound.scale
    assert total == pytest.approx(gradients(layers).sum(axis=0), abs=0.2)


def test_longer_gradients_are_shortened_to_the_clip_norm() -> None:
    layers = [Factors(draw.entered, 50 * draw.returned) for draw in random_layers(3000)]
    bound = mechanism()
    full = gradients(layers)
    clipped = full / np.linalg.norm(full, axis=1, keepdims=True)
    total = factored_sum(layers, bound, entropy=bytes_of(13)) / bound.scale
    assert total == pytest.approx(clipped.sum(axis=0), abs=0.3)


def test_rounding_has_no_bias() -> None:
    """The mean over many draws of one patient's integers is the patient's gradient."""
    draw = random_layers(1)
    repeated = [
        Factors(np.repeat(x.entered, 40_000, 0), np.repeat(0.05 * x.returned, 40_000, 0))
        for x in draw
    ]
    bound = mechanism(scale=300)
    mean = factored_sum(repeated, bound, entropy=bytes_of(17)) / (40_000 * bound.scale)
    assert mean == pytest.approx(gradients(repeated)[0], abs=3e-4)


def test_a_norm_beyond_the_bound_is_drawn_again() -> None:
    layers = [Factors(np.full((2, 1), 0.7), np.array([[5.0], [1e-9]]))]
    bound = mechanism((1, 1), scale=10)
    outward, inward = 1 - 2**-32, 0.0
    # three draws outward (entered, one, returned), then inward: only the first patient is redrawn
    squares = exact_squares(layers, bound, Fixed(outward, outward, outward, inward))
    again = exact_squares(layers, bound, Fixed(inward))
    assert squares[0] == again[0] > 0
    assert squares[1] > again[1] == 0


def test_after_many_draws_a_patient_contributes_zero() -> None:
    layers = [Factors(np.full((3, 1), 0.7), np.array([[5.0], [0.0], [5.0]]))]
    outward = Fixed(1 - 2**-32)
    assert exact_squares(layers, mechanism((1, 1), scale=10), outward) == [0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200, -1e308])
@pytest.mark.parametrize("where", ["entered", "returned", "both"])
def test_a_patient_that_is_not_finite_contributes_zero_and_others_are_unchanged(
    bad: float, where: str
) -> None:
    layers = random_layers(3)
    others = [Factors(x.entered[1:], x.returned[1:]) for x in layers]
    whole = factored_sum(others, mechanism(), entropy=bytes_of(2))
    for name in ("entered", "returned"):
        if where in (name, "both"):
            getattr(layers[0], name)[0, 0] = bad
    with np.errstate(all="ignore"):
        squares = exact_squares(layers, mechanism(), Keystream(bytes_of(1)))
        total = factored_sum(layers, mechanism(), entropy=bytes_of(3))
    assert squares[1] > 0
    assert max(squares) <= mechanism().squared_sensitivity
    assert squares[0] == 0 or math.isfinite(bad)
    assert total / mechanism().scale == pytest.approx(whole / mechanism().scale, abs=0.1) or (
        math.isfinite(bad)
    )


def test_zero_gradients_contribute_zero() -> None:
    layers = [Factors(x.entered, 0 * x.returned) for x in random_layers(4)]
    assert not factored_sum(layers, mechanism()).any()


def test_no_patients_contribute_zero() -> None:
    assert factored_sum(random_layers(0), mechanism()).tolist() == [0] * mechanism().dimension


def test_single_precision_factors_are_accepted() -> None:
    layers = random_layers(200)
    single = [Factors(x.entered.astype(np.float32), x.returned.astype(np.float32)) for x in layers]
    squares = exact_squares(single, mechanism(), Keystream(bytes_of(1)))
    assert max(squares) <= mechanism().squared_sensitivity
    assert squared_norms(single) == pytest.approx(squared_norms(layers), rel=1e-5)


def test_fractions_are_even_and_never_repeat() -> None:
    stream = Keystream(bytes_of(2))
    first, second = stream.fractions(20_000), stream.fractions(20_000)
    assert ((first >= 0) & (first < 1)).all()
    assert abs(first.mean() - 0.5) < 0.02
    assert (first * 2**32 == np.rint(first * 2**32)).all()
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, Keystream(bytes_of(3)).fractions(20_000))
