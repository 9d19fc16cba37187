"""Targets by family, and the loss's derivative checked against differences of the loss itself."""

import numpy as np
import pytest

from client.tasks.losses import residuals, targets
from protocols.tasks import Family
from tests.support.patients import FEATURES, columns, glm


@pytest.mark.parametrize(
    ("family", "classes"), [(Family.LOGISTIC, 1), (Family.LINEAR, 1), (Family.MULTINOMIAL, 3)]
)
def test_targets_have_a_column_for_each_class(family: Family, classes: int) -> None:
    target_columns = targets(glm(family), FEATURES, columns(20))
    assert target_columns.shape == (20, classes)
    assert target_columns.dtype == np.float64
    if family is Family.LOGISTIC:
        assert set(np.unique(target_columns)) <= {0.0, 1.0}
    if family is Family.MULTINOMIAL:
        assert (target_columns.sum(axis=1) == 1).all()


def loss(family: Family, outputs: np.ndarray, target: np.ndarray) -> float:
    """Return the negative log-likelihood of one patient, written out."""
    if family is Family.LINEAR:
        return float(((outputs - target) ** 2).sum() / 2)
    if family is Family.LOGISTIC:
        return float(np.log1p(np.exp(-outputs)).sum() + ((1 - target) * outputs).sum())
    return float(np.log(np.exp(outputs).sum()) - (outputs * target).sum())


@pytest.mark.parametrize("family", list(Family))
def test_the_residual_is_the_derivative_of_the_loss(family: Family) -> None:
    classes = 3 if family is Family.MULTINOMIAL else 1
    outputs = np.linspace(-1.5, 2.0, classes)
    target = np.eye(classes)[0]
    derivative, step = residuals(family, outputs[None, :], target[None, :])[0], 1e-6
    for index in range(classes):
        above, below = outputs.copy(), outputs.copy()
        above[index] += step
        below[index] -= step
        slope = (loss(family, above, target) - loss(family, below, target)) / (2 * step)
        assert derivative[index] == pytest.approx(slope, abs=1e-6)
