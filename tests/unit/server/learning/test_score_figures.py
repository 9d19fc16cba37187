"""Figures of noise-free sums equal those of the clear scores."""

import numpy as np
import pytest

from server.learning import score_figures
from tests.support.intervals import require_wider
from tests.support.score_tables import TABLE, people, sums


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_clear_scores(seed: int) -> None:
    score, label = people(seed)
    found = sums(score, label)
    bins = TABLE.score_bins(score)
    gaps = np.bincount(bins, label - score)
    right = ((score >= 0.5) == (label == 1)).mean()
    assert float(score_figures.accuracy(found).value) == pytest.approx(right)
    large = score_figures.calibration_in_the_large(found).value
    assert float(large) == pytest.approx((label - score).mean(), abs=1e-9)
    np.testing.assert_allclose(score_figures.calibration_gaps(found).gaps, gaps, atol=1e-6)


@pytest.mark.parametrize("figure", ["accuracy", "calibration_in_the_large"])
def test_more_noise_and_fewer_patients_widen_an_interval(figure: str) -> None:
    score, label = people(1)
    of = getattr(score_figures, figure)
    quiet, loud = of(sums(score, label, 1.0)), of(sums(score, label, 20.0))
    few = of(sums(score[:4_000], label[:4_000], 1.0))
    require_wider(quiet, loud, few)


def test_narrow_scores_within_a_bin_are_told_apart_by_their_squares() -> None:
    draw = np.random.default_rng(0)
    true = np.concatenate([draw.normal(0.3, 0.02, 20_000), draw.normal(0.7, 0.02, 20_000)])
    label = (
        draw.random(40_000) < 1 / (1 + np.exp(-30 * (true - np.round(true, 0) * 0.4 - 0.3)))
    ).astype(float)
    found = sums(true, label)
    assert float(found.spreads[4]) < 0.05
    assert float(found.spreads[0]) == pytest.approx(1 / 3)  # an empty bin counts as even
