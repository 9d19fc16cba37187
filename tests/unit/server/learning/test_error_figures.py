"""Figures of noise-free sums equal those of the clear errors."""

import numpy as np
import pytest

from protocols.tasks.bin_edges import ERROR_EDGES
from protocols.tasks.error_table import ErrorTable
from protocols.tasks.features import FloatArray
from server.learning import error_figures
from server.learning.error_figures import ErrorSums
from server.learning.evaluate import error_sums
from tests.support.intervals import require_wider
from tests.support.patients import dense

TABLE = ErrorTable(groups=1, edges=(0.0, *ERROR_EDGES, 1.0))


def people(patients: int = 5_000) -> tuple[FloatArray, FloatArray]:
    draw = np.random.default_rng(0)
    target = np.clip(draw.normal(0.1, 0.4, patients), -1, 1)
    return np.clip(draw.normal(0.01, 0.06, patients) * (1 + target), -1, 1), target


def sums(error: FloatArray, target: FloatArray, noise: float = 1e-6) -> ErrorSums:
    added = TABLE.contributions(error, target, np.zeros(len(error), dtype=np.int64))
    return error_sums(TABLE, dense(added, TABLE.dimension).sum(axis=0), noise)


def test_figures_are_those_of_the_clear_errors() -> None:
    error, target = people()
    found = sums(error, target)
    explained = 1 - (error**2).mean() / (target.var() / 4)
    for figure, exact in (
        (error_figures.mean_absolute_error, np.abs(error).mean()),
        (error_figures.mean_residual, error.mean()),
        (error_figures.variance_explained, explained),
    ):
        ends = figure(found)
        assert float(ends.value) == pytest.approx(exact, rel=1e-9)
        assert ends.low < exact < ends.high


def test_without_noise_the_interval_of_a_mean_error_is_the_usual_one() -> None:
    error, target = people()
    ends = error_figures.mean_residual(sums(error, target))
    usual = 2 * 1.96 * error.std() / np.sqrt(len(error))
    assert float(ends.high - ends.low) == pytest.approx(usual, rel=0.01)


@pytest.mark.parametrize("figure", ["mean_absolute_error", "mean_residual", "variance_explained"])
def test_more_noise_and_fewer_patients_widen_an_interval(figure: str) -> None:
    error, target = people()
    of = getattr(error_figures, figure)
    quiet, loud = of(sums(error, target, 1.0)), of(sums(error, target, 5.0))
    few = of(sums(error[:1_000], target[:1_000], 1.0))
    require_wider(quiet, loud, few)


def test_targets_that_hardly_vary_have_no_r_squared() -> None:
    error, _ = people()
    ends = error_figures.variance_explained(sums(error, np.full(len(error), 0.2), 5.0))
    assert np.isnan(ends.low)
