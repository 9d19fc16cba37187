import numpy as np
import pytest

from server.learning.estimates import (
    DRAWS,
    Estimate,
    cell_noise_std,
    estimate,
    figures_json,
    nearest_counts,
    simulate_tables,
)
from server.learning.figures import accuracy
from tests.support.patients import glm, release


def generator() -> np.random.Generator:
    return np.random.default_rng(9)


def test_the_noise_of_a_cell_is_that_of_all_contributions() -> None:
    mechanism = release(glm(), "evaluate", noise_std=640)
    assert cell_noise_std(mechanism, 4) == pytest.approx(2 * 640 / mechanism.scale)


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_counts_are_counts_of_the_same_total(seed: int) -> None:
    table = np.random.default_rng(seed).normal(5, 20, size=(10, 2))
    nearest = nearest_counts(table)
    assert (nearest >= 0).all()
    assert nearest.sum() == pytest.approx(max(1.0, table.sum()))
    shifted = table - (table - nearest)[nearest > 0].mean()
    assert np.allclose(nearest, np.maximum(shifted, 0))  # one shift for all, then cut at zero


def test_counts_without_negative_cells_are_unchanged() -> None:
    table = np.array([[3.0, 0.0], [5.0, 2.0]])
    assert np.allclose(nearest_counts(table), table)


def test_a_table_with_a_negative_total_can_be_simulated() -> None:
    fitted, drawn = simulate_tables(np.full((4, 2), -3.0), 2.0, generator())
    assert fitted.sum() == pytest.approx(1.0)
    assert drawn.shape == (DRAWS, 4, 2)
    assert np.isfinite(drawn).all()


def test_simulated_tables_have_the_spread_of_sampling_and_noise() -> None:
    table = np.full((4, 2), 100.0)
    _, drawn = simulate_tables(table, 30.0, generator())
    expected = np.sqrt(100 * (1 - 1 / 8) + 30.0**2)
    assert drawn.std(axis=0) == pytest.approx(np.full((4, 2), expected), rel=0.15)


def interval(table: np.ndarray, noise: float) -> Estimate:
    fitted, drawn = simulate_tables(table, noise, generator())
    estimated = estimate([(accuracy(table), accuracy(fitted), accuracy(drawn))], (0, 1))
    assert estimated is not None
    return estimated


def test_more_noise_and_fewer_patients_widen_the_interval() -> None:
    table = np.tile([[30.0, 10.0], [10.0, 30.0]], (5, 1))[[0, 2, 4, 6, 8, 1, 3, 5, 7, 9]]
    quiet, loud = interval(table, 0.5), interval(table, 10.0)
    small = interval(table / 4, 0.5)
    assert quiet.high - quiet.low < loud.high - loud.low
    assert quiet.high - quiet.low < small.high - small.low
    for one in (quiet, loud, small):
        assert one.low <= one.value <= one.high
        assert one.value == pytest.approx(0.75, abs=0.03)


def test_an_estimate_stays_within_its_limits() -> None:
    table = np.zeros((10, 2))
    table[0, 0] = table[9, 1] = 40
    estimated = interval(table, 3.0)
    assert estimated.value <= 1.0
    assert estimated.high <= 1.0


def test_a_figure_is_suppressed_if_the_noise_exceeds_the_patients() -> None:
    table = np.full((10, 2), 0.5)
    fitted, drawn = simulate_tables(table, 8.0, generator())
    figures = [(accuracy(table), accuracy(fitted), accuracy(drawn))]
    assert estimate(figures, (0, 1)) is None


HALF = np.array(0.5)


def test_a_figure_without_value_is_suppressed() -> None:
    nan = np.full(DRAWS, np.nan)
    assert estimate([(HALF, HALF, nan)], (0, 1)) is None
    assert estimate([(np.array(np.nan), HALF, np.zeros(DRAWS))], (0, 1)) is None


def test_figures_of_the_same_patients_are_assumed_to_err_together() -> None:
    draws = np.random.default_rng(0).normal(0.5, 0.1, (2, DRAWS))
    one = estimate([(HALF, HALF, draws[0])], (0, 1))
    both = estimate([(HALF, HALF, row) for row in draws], (0, 1))
    assert one is not None
    assert both is not None
    assert both.high - both.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_suppressed_figure_is_null_and_never_zero() -> None:
    assert figures_json({"auc": None, "accuracy": Estimate(0.5, 0.4, 0.6)}) == {
        "auc": None,
        "accuracy": {"value": 0.5, "low": 0.4, "high": 0.6},
    }
