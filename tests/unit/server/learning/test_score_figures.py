"""Figures of noise-free sums equal those of the clear scores."""

import numpy as np
import pytest

from protocols.tasks.features import FloatArray
from protocols.tasks.score_table import ScoreTable
from server.learning import score_figures
from server.learning.evaluate import score_sums
from server.learning.score_figures import ScoreSums
from tests.support.intervals import require_wider
from tests.support.patients import dense

EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TABLE = ScoreTable(classes=1, groups=1, edges=EDGES, label_bins=2, placed=True)


def people(seed: int, patients: int = 40_000) -> tuple[FloatArray, FloatArray]:
    """Return scores of a rare outcome, and outcomes that are not quite as the scores say."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(-3.0, 1.2, patients)
    score = 1 / (1 + np.exp(-logit))
    return score, (draw.random(patients) < 1 / (1 + np.exp(-1.2 * logit - 0.8))).astype(float)


def sums(score: FloatArray, label: FloatArray, noise: float = 1e-6) -> ScoreSums:
    nobody = np.zeros(len(score), dtype=np.int64)
    added = TABLE.contributions(score[:, None], label[:, None].astype(np.int64), nobody)
    (found,) = score_sums(TABLE, dense(added, TABLE.dimension).sum(axis=0), noise)
    return found


def plain_auc(score: FloatArray, label: FloatArray) -> float:
    order = score.argsort()
    below = np.cumsum(1 - label[order])
    return float((below * label[order]).sum() / (label.sum() * (1 - label).sum()))


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_clear_scores(seed: int) -> None:
    score, label = people(seed)
    found = sums(score, label)
    bins = TABLE.score_bins(score)
    gaps = np.bincount(bins, label - score)
    assert float(score_figures.auc(found).value) == pytest.approx(plain_auc(score, label), abs=2e-3)
    right = ((score >= 0.5) == (label == 1)).mean()
    assert float(score_figures.accuracy(found).value) == pytest.approx(right)
    large = score_figures.calibration_in_the_large(found).value
    assert float(large) == pytest.approx((label - score).mean(), abs=1e-9)
    np.testing.assert_allclose(score_figures.calibration_gaps(found).gaps, gaps, atol=1e-6)


def test_auc_is_one_for_separate_labels_and_zero_for_reversed_ones() -> None:
    score, _ = people(0, 2_000)
    label = (score > 0.05).astype(float)
    assert float(score_figures.auc(sums(score, label)).value) == pytest.approx(1.0)
    assert float(score_figures.auc(sums(score, 1 - label)).value) == pytest.approx(0.0)


@pytest.mark.parametrize("figure", ["auc", "accuracy", "calibration_in_the_large"])
def test_more_noise_and_fewer_patients_widen_an_interval(figure: str) -> None:
    score, label = people(1)
    of = getattr(score_figures, figure)
    quiet, loud = of(sums(score, label, 1.0)), of(sums(score, label, 20.0))
    few = of(sums(score[:4_000], label[:4_000], 1.0))
    require_wider(quiet, loud, few)


def test_all_scores_in_one_bin_are_too_coarse_for_an_auc() -> None:
    draw = np.random.default_rng(0)
    score = draw.uniform(0.5, 1.0, 5_000)
    found = sums(score, (draw.random(5_000) < score).astype(float))
    assert score_figures.too_coarse(found)
    assert np.isnan(score_figures.auc(found).low)


def test_narrow_scores_within_a_bin_are_told_apart_by_their_squares() -> None:
    draw = np.random.default_rng(0)
    true = np.concatenate([draw.normal(0.3, 0.02, 20_000), draw.normal(0.7, 0.02, 20_000)])
    label = (
        draw.random(40_000) < 1 / (1 + np.exp(-30 * (true - np.round(true, 0) * 0.4 - 0.3)))
    ).astype(float)
    found = sums(true, label)
    assert float(found.spreads[4]) < 0.05
    assert float(found.spreads[0]) == pytest.approx(1 / 3)  # an empty bin counts as even


def test_two_mirrored_classes_have_the_interval_of_one() -> None:
    score, label = people(2)
    one, other = sums(score, label), sums(score, label)
    np.testing.assert_allclose(score_figures._of_mean([np.array(0.04), np.array(0.04)]), 0.04)
    both = score_figures.auc(one, other)
    alone = score_figures.auc(one)
    assert float(both.high - both.low) == pytest.approx(float(alone.high - alone.low), rel=1e-3)
