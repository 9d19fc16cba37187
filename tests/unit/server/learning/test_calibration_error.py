"""The interval of the expected calibration error: exact cases, its ends, and what it covers."""

import numpy as np
import pytest

from server.learning.calibration_error import SURE, CalibrationGaps, folded_normal

DRAWS = 400
BINS = 10


def _interval(
    gaps: list[float], deviation: float, patients: float = 1_000.0
) -> tuple[float, float, float]:
    variances = np.full(len(gaps), deviation**2)
    of = CalibrationGaps(np.array(gaps), variances, np.array(patients)).interval()
    return float(of[0]), float(of[1]), float(of[2])


def test_folded_normal_has_the_moments_of_absolute_normal_numbers() -> None:
    sizes, deviations = np.array([0.0, 0.5, 2.0, 30.0]), np.array([1.0, 2.0, 1.0, 3.0])
    drawn = np.abs(sizes + deviations * np.random.default_rng(1).normal(size=(200_000, 4)))
    mean, variance = folded_normal(sizes, deviations)
    np.testing.assert_allclose(mean, drawn.mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(variance, drawn.var(axis=0), rtol=0.02)


def test_large_gaps_are_the_error_itself_whatever_their_signs() -> None:
    value, low, high = _interval([50.0, -30.0], 0.01)
    assert value == pytest.approx(0.08, abs=1e-5)
    assert low < 0.08 < high
    assert high - low < 1e-3


def test_gaps_as_large_as_their_deviations_may_be_no_error_at_all() -> None:
    value, low, high = _interval([5.0, -5.0] * 5, 7.0)
    assert value == 0.0
    assert low == 0.0
    assert 0.0 < high < 0.1


def test_gaps_of_zero_do_not_claim_that_there_is_no_error() -> None:
    _, low, high = _interval([0.0] * BINS, 5.0)
    assert low == 0.0
    assert high > 0.01


def test_one_large_gap_beside_noise_is_not_counted_with_the_noise() -> None:
    gaps = [100.0, *([4.0, -4.0] * 4), 4.0]
    value, low, high = _interval(gaps, 5.0)
    assert value == pytest.approx(0.1, abs=0.005)
    assert low < 0.1 < high


def test_an_error_is_never_above_one() -> None:
    assert _interval([900.0, -900.0], 10.0)[2] == 1.0


def test_each_release_of_several_gets_the_interval_that_it_gets_alone() -> None:
    generator = np.random.default_rng(2)
    gaps, variances = generator.normal(0, 9, (5, BINS)), generator.uniform(20, 90, (5, BINS))
    together = CalibrationGaps(gaps, variances, np.full(5, 800.0)).interval()
    for row in range(5):
        alone = CalibrationGaps(gaps[row], variances[row], np.array(800.0)).interval()
        np.testing.assert_allclose([end[row] for end in together], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(np.zeros(BINS), id="calibrated"),
        pytest.param(np.full(BINS, 8.0), id="a gap of one deviation in each bin"),
        pytest.param(np.array([80.0, *[0.0] * (BINS - 1)]), id="one large gap"),
        pytest.param(np.array([SURE * 8.0, *[0.0] * (BINS - 1)]), id="one gap that is nearly sure"),
        pytest.param(np.linspace(-30, 30, BINS), id="a wrong slope"),
    ],
)
def test_the_interval_covers_the_true_error_as_often_as_it_says(truth: np.ndarray) -> None:
    generator = np.random.default_rng(3)
    gaps = truth + generator.normal(0, 8.0, (DRAWS, BINS))
    patients = np.full(DRAWS, 10_000.0)
    _, low, high = CalibrationGaps(gaps, np.full((DRAWS, BINS), 64.0), patients).interval()
    error = np.abs(truth).sum() / 10_000
    covered = float(((low <= error) & (error <= high)).mean())
    assert 0.91 <= covered <= 1.0
