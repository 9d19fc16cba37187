"""Link functions and targets that all training tasks share."""

import numpy as np
import pytest

from protocols.tasks.training import one_hot, sigmoid, softmax

EXTREME = np.array([-1e308, -745.2, -40.0, 0.0, 40.0, 745.2, 1e308])


def test_the_sigmoid_never_overflows_and_is_symmetric() -> None:
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(EXTREME)
    assert np.allclose(values + sigmoid(-EXTREME), 1.0)
    assert values[3] == 0.5
    assert (np.diff(values) >= 0).all()
    assert (values[0], values[-1]) == (0.0, 1.0)


def test_the_softmax_of_each_row_sums_to_one_whatever_its_size() -> None:
    rows = np.array([[0.0, 0.0, 0.0], [1e300, 0.0, -1e300], [700.0, 710.0, 720.0]])
    with np.errstate(over="raise", invalid="raise"):
        values = softmax(rows)
    assert np.allclose(values.sum(axis=1), 1.0)
    assert values[0] == pytest.approx(1 / 3)
    assert values[1] == pytest.approx([1.0, 0.0, 0.0])


def test_a_row_s_softmax_does_not_change_with_the_other_rows() -> None:
    rows = np.linspace(-3, 3, 12).reshape(4, 3)
    assert (softmax(rows)[2] == softmax(rows[2:3])[0]).all()


def test_one_hot_puts_one_1_in_each_row() -> None:
    assert one_hot(np.array([0.0, 2.0, 1.0]), 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
