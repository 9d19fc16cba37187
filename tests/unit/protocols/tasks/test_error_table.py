import numpy as np
import pytest

from protocols.tasks.error_table import SQUARED_NORM, ErrorTable
from tests.support.patients import dense

TABLE = ErrorTable(groups=2, edges=(0.0, 0.1, 0.5, 1.0))


def _vectors(errors: np.ndarray, targets: np.ndarray, group: int = 0) -> np.ndarray:
    groups = np.full(len(errors), group)
    return np.asarray(dense(TABLE.contributions(errors, targets, groups), TABLE.dimension))


def test_the_moments_are_exact_sums_by_group() -> None:
    generator = np.random.default_rng(0)
    r, y = generator.uniform(-1, 1, (2, 100))
    moments = TABLE.moments_of(_vectors(r, y, group=1).sum(axis=0))
    assert moments[0].tolist() == [0.0] * 5
    positive, negative = r[r > 0].sum(), -r[r < 0].sum()
    expected = [positive, negative, (r**2).sum(), y.sum(), (y**2 - 0.5).sum()]
    assert moments[1] == pytest.approx(expected)


def test_a_patient_is_counted_once_by_error_and_target() -> None:
    counts = TABLE.counts_of(_vectors(np.array([-0.05, 0.1, 1.0]), np.array([-1, 0.1, 1.0])).sum(0))
    assert counts[0, 0, 0] == counts[0, 1, 2] == counts[0, 2, 3] == 1
    assert counts.sum() == 3


def test_the_norm_is_reached_by_the_largest_error_and_never_exceeded() -> None:
    r, y = (
        grid.reshape(-1) for grid in np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
    )
    norms = np.square(_vectors(r, y)).sum(axis=1)
    assert norms.max() == pytest.approx(SQUARED_NORM)
