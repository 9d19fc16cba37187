"""A patient's integers depend, to the last bit, on this patient's record and random words only.

The models cancel, overflow, vanish, or are not finite; so do the records of one patient. With
ordinary matrix products each of these tests fails.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.tasks import mlp
from client.tasks.mlp import factors
from protocols.numerics.factored_rounding import (
    Factors,
    factored_scale,
    round_factors,
    squared_norms,
)
from protocols.numerics.mechanism import Mechanism, Rounding
from protocols.numerics.rowwise_products import (
    MANTISSA,
    grid_bits,
    grid_product,
    matrix_on_grid,
    rows_on_grid,
)
from protocols.tasks import Family
from tests.support.examples import examples

Floats = NDArray[np.float64]
Layers = list[tuple[Floats, Floats]]
SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = st.lists(st.integers(1, 40), min_size=2, max_size=4)
HOSTILE = [0.0, -0.0, 1e-320, 1e-200, 1e17, -1e17, 1e120, 1e300, np.inf, -np.inf, np.nan]


def spread(draw: np.random.Generator, shape: tuple[int, ...], digits: int) -> Floats:
    """Return numbers whose sizes span up to so many decimal digits."""
    return np.asarray(draw.normal(size=shape) * 10.0 ** draw.integers(-digits, digits + 1, shape))


def cancelling(draw: np.random.Generator, shape: tuple[int, int], size: float) -> Floats:
    """Return weights of units in equal pairs, whose later weights cancel their contributions.

    What is left of the sums depends on the last weights and on the order of adding.
    """
    leaving, entering = shape
    matrix, half = size * draw.normal(size=shape), entering // 2
    matrix[:, half : 2 * half] = -matrix[:, :half]
    matrix[:, 2 * half :] = draw.normal(size=(leaving, entering - 2 * half))
    matrix[leaving // 2 : 2 * (leaving // 2)] = matrix[: leaving // 2]
    return matrix


def sprinkled(draw: np.random.Generator, values: Floats, chance: float) -> Floats:
    """Return values, some of them replaced by extreme or non-finite ones."""
    at = draw.random(values.shape) < chance
    return np.where(at, draw.choice(HOSTILE, values.shape), values)


def network(seed: int, widths: list[int]) -> Layers:
    draw = np.random.default_rng(seed)
    size = 10.0 ** draw.choice([0, 3, 17, 90])
    chance = float(draw.choice([0.0, 0.0, 0.02]))
    return [
        (
            sprinkled(draw, cancelling(draw, (leaving, entering), size), chance),
            np.repeat(draw.normal(size=(leaving + 1) // 2), 2)[:leaving] * draw.choice([0, 1]),
        )
        for entering, leaving in pairwise(widths)
    ]


def people(seed: int, patients: int, widths: list[int]) -> tuple[Floats, Floats]:
    """Return rows, whose two halves are alike, and targets; the last row may be anything."""
    draw, half = np.random.default_rng(seed), widths[0] // 2
    rows = draw.uniform(-1, 1, (patients, widths[0]))
    rows[:, half : 2 * half] = rows[:, :half]
    rows[-1] = sprinkled(draw, rows[-1], float(draw.choice([0.0, 0.5])))
    return rows, draw.integers(0, 2, (patients, widths[-1])).astype(float)


class Alike:
    """Random words that belong to a patient: the same at every position of the batch."""

    def fractions(self, size: int) -> Floats:
        return np.full(size, 0.5)


def values_computed_for(
    layers: Layers, rows: Floats, target: Floats, family: Family = Family.LOGISTIC
) -> list[Floats]:
    """Return all values computed for patients, a row each: factors, norms, integers."""
    widths = [layers[0][0].shape[1], *(len(biases) for _, biases in layers)]
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=sum((n + 1) * m for n, m in pairwise(widths)),
        clip_norm=1.0,
        scale=factored_scale(1.0, widths),
        noise_std=3,
        patients_bound=1000,
        rounding=Rounding.FACTORED,
    )
    with np.errstate(all="ignore"):
        layer_factors = factors(family, layers, rows, target)
        whole = round_factors(layer_factors, mechanism, Alike())  # type: ignore[arg-type]
        norms = squared_norms(layer_factors)
    integers = [part for layer in whole for part in (layer.entered, layer.ones, layer.returned)]
    return [
        norms,
        *(part for layer in layer_factors for part in (layer.entered, layer.returned)),
        *integers,
    ]


def equal_at(some: list[Floats], at: NDArray[np.int64], others: list[Floats]) -> bool:
    """Return whether the values of the patients at these positions are those of the others."""
    return all(
        np.array_equal(one[at], other, equal_nan=True)
        for one, other in zip(some, others, strict=True)
    )


def neighbours(seed: int, patients: int) -> list[NDArray[np.int64]]:
    """Return cohorts: without the last, without one, alone, in another order, repeated."""
    draw, everybody = np.random.default_rng(seed), np.arange(patients)
    return [
        everybody[:-1],
        np.delete(everybody, draw.integers(patients)),
        draw.integers(patients, size=1),
        draw.permutation(everybody),
        np.sort(draw.integers(patients, size=patients + 3)),
    ]


@settings(deadline=None, max_examples=examples(150))
@given(SEEDS, SEEDS, WIDTHS, st.integers(2, 70), st.sampled_from(Family))
def test_a_patient_s_integers_do_not_depend_on_other_patients(
    weights: int, records: int, widths: list[int], patients: int, family: Family
) -> None:
    layers = network(weights, widths)
    rows, target = people(records, patients, widths)
    whole = values_computed_for(layers, rows, target, family)
    for chosen in neighbours(records, patients):
        assert equal_at(
            whole, chosen, values_computed_for(layers, rows[chosen], target[chosen], family)
        )


def found_out(weights: int) -> bool:
    layers, widths = network(weights, [40, 30, 20, 1]), [40, 30, 20, 1]
    rows, target = people(weights, 64, widths)
    whole = values_computed_for(layers, rows, target)
    return not all(
        equal_at(whole, chosen, values_computed_for(layers, rows[chosen], target[chosen]))
        for chosen in neighbours(weights, 64)
    )


def test_these_cohorts_detect_ordinary_products(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(found_out(weights) for weights in range(20))
    monkeypatch.setattr(mlp, "rows_on_grid", lambda rows, _: rows)
    monkeypatch.setattr(mlp, "matrix_on_grid", lambda matrix, _: matrix)
    assert sum(found_out(weights) for weights in range(20)) > 10


@settings(deadline=None, max_examples=examples(100))
@given(SEEDS, st.integers(1, 12), st.integers(1, 200), st.integers(1, 12))
def test_a_product_is_exact_in_every_order_of_addition(
    seed: int, patients: int, entering: int, leaving: int
) -> None:
    draw = np.random.default_rng(seed)
    digits = int(draw.choice([0, 9, 60]))
    bits = grid_bits((entering, leaving))
    rows = rows_on_grid(spread(draw, (patients, entering), digits), bits)
    matrix = matrix_on_grid(spread(draw, (entering, leaving), digits), bits)
    product = grid_product(rows, matrix)
    order = draw.permutation(entering)
    assert np.array_equal(product, grid_product(rows[:, order], matrix[order]))
    assert np.array_equal(product, one_after_another(rows, matrix))
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(rows[0], matrix[:, 0], strict=True))
    assert Fraction(product[0, 0]) == exact
    squares = sum(Fraction(a) ** 2 for a in rows[0])
    assert Fraction(np.einsum("ij,ij->i", rows, rows)[0]) == squares


def one_after_another(rows: Floats, matrix: Floats) -> Floats:
    total = np.zeros((len(rows), matrix.shape[1]))
    for column, line in zip(rows.T, matrix, strict=True):
        total += column[:, None] * line
    return total


@settings(deadline=None, max_examples=examples(100))
@given(SEEDS, st.integers(1, 300), st.integers(1, 300))
def test_grid_values_are_within_the_number_of_steps_of_the_proof(
    seed: int, entering: int, leaving: int
) -> None:
    draw, bits = np.random.default_rng(seed), grid_bits((leaving, entering))
    assert max(entering, leaving) * 2 ** (2 * bits) <= 2**MANTISSA
    rows = draw.normal(size=(3, entering)) * 10.0 ** draw.integers(-110, 110, (3, 1))
    for before, after in zip(rows, rows_on_grid(rows, bits), strict=True):
        _, exponent = np.frexp(np.abs(before).max())
        steps = after / np.ldexp(1.0, int(exponent) - bits)
        assert np.array_equal(steps, np.rint(steps))
        assert np.abs(steps).max() <= 2**bits
        assert np.abs(after - before).max() <= np.ldexp(0.5, int(exponent) - bits)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -(2.0**400)])
@pytest.mark.parametrize("patients", [1, 2, 37])
def test_an_out_of_range_row_or_matrix_is_nan_and_others_are_unchanged(
    bad: float, patients: int
) -> None:
    draw = np.random.default_rng(3)
    rows, matrix = draw.normal(size=(patients, 6)), draw.normal(size=(6, 4))
    matrix[:, 1] = 0.0
    rows[0, 2] = bad
    product = grid_product(rows_on_grid(rows, 20), matrix_on_grid(matrix, 20))
    rest = grid_product(rows_on_grid(rows[1:], 20), matrix_on_grid(matrix, 20))
    assert np.isnan(product[0]).all()
    assert np.array_equal(product[1:], rest)
    assert np.isfinite(rest).all()
    matrix[3, 2], rows[0] = bad, 0.0
    assert np.isnan(grid_product(rows_on_grid(rows, 20), matrix_on_grid(matrix, 20))).all()


class Skipping(np.ndarray[tuple[int, int], np.dtype[np.float64]]):
    """A library that skips what it treats as zero, as some do for some shapes."""

    def __matmul__(self, other: Floats) -> Floats:  # type: ignore[override]
        return np.asarray(np.nan_to_num(self.view(np.ndarray)) @ np.nan_to_num(other))


def test_out_of_range_values_are_nan_whatever_the_library_returns() -> None:
    rows, matrix = np.array([[np.nan] * 2, [1.0, 0.5]]), np.ones((2, 3))
    product = grid_product(rows.view(Skipping), matrix)
    assert np.isnan(product[0]).all()
    assert product[1].tolist() == [1.5] * 3
    assert np.isnan(grid_product(rows.view(Skipping), np.full((2, 3), np.nan))).all()


def test_rows_too_small_to_matter_give_zero() -> None:
    rows = np.array([[2.0**-450, -(2.0**-500)], [2.0**-390, 0.0]])
    assert rows_on_grid(rows, 20).tolist() == [[0.0, 0.0], [2.0**-390, 0.0]]


@pytest.mark.parametrize("broken", ["bits", "rows", "matrix"])
def test_a_grid_that_is_too_fine_is_detected(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many bits, or ungridded rows or weights, sums are rounded again."""
    if broken == "bits":
        monkeypatch.setattr(mlp, "grid_bits", lambda shape: grid_bits(shape) + 8)
    elif broken == "rows":
        monkeypatch.setattr(mlp, "rows_on_grid", lambda rows, _: rows)
    else:
        monkeypatch.setattr(mlp, "matrix_on_grid", lambda matrix, _: matrix)
    assert any(found_out(weights) for weights in range(20))


def test_sums_of_squares_of_wide_rows_do_not_depend_on_how_many_there_are() -> None:
    """numpy's own sums do depend on it, from 8,192 entries on: so the squares must be exact."""
    draw = np.random.default_rng(4)
    row = spread(draw, (1, 10_000), 3)
    gridded = rows_on_grid(np.repeat(row, 5, axis=0), grid_bits((10_000, 3)))
    alone = Factors(gridded[:1], gridded[:1, :1])
    together = Factors(gridded, gridded[:, :1])
    assert (together.entered_squares == alone.entered_squares).all()
