"""No patient's result depends, to the last bit, on the other patients."""

import numpy as np
import pytest

from protocols.numerics.rowwise_products import row_products

SIZES = [(7, 1), (13, 1), (40, 3), (64, 256), (257, 1), (257, 33)]


@pytest.mark.parametrize(("entering", "leaving"), SIZES)
@pytest.mark.parametrize("patients", [1, 37, 500])
def test_products_are_the_products(entering: int, leaving: int, patients: int) -> None:
    draw = np.random.default_rng(1)
    rows, matrix = draw.normal(size=(patients, entering)), draw.normal(size=(leaving, entering)).T
    assert row_products(rows, matrix) == pytest.approx(rows @ matrix)


@pytest.mark.parametrize(("entering", "leaving"), SIZES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_row_gives_the_same_result_at_every_position(
    entering: int, leaving: int, *, turned: bool
) -> None:
    """Sums that cancel, so that another order of addition gives a completely different result."""
    draw = np.random.default_rng(2)
    matrix = draw.normal(size=(leaving, entering)).T * 1e16
    matrix = np.ascontiguousarray(matrix) if turned else matrix
    rows = draw.normal(size=(503, entering))
    rows[:, -1] = -(rows[:, :-1] @ matrix[:-1, 0]) / matrix[-1, 0]
    whole = row_products(rows, matrix)
    for without in (0, 251, 502):
        rest = row_products(np.delete(rows, without, axis=0), matrix)
        assert np.array_equal(np.delete(whole, without, axis=0), rest)
    for index in (0, 250, 502):
        assert np.array_equal(whole[index], row_products(rows[index : index + 1], matrix)[0])


def test_no_rows_give_no_products() -> None:
    assert row_products(np.zeros((0, 4)), np.ones((4, 3))).shape == (0, 3)
