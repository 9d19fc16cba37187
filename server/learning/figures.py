"""Figures of a table of scores by label: AUC, accuracy, calibration; errors of a numeric target.

Each function maps tables (…, score bins, label bins) to figures (…,), so that the same code serves
the observed table and a thousand simulated ones. The figure is NaN if it is undefined for a table.
"""

import numpy as np

from protocols.tasks.features import FloatArray

SMALLEST_TOTAL = 1.0
"""A ratio over less than one (noisy) patient has no meaning."""


def _ratio(part: FloatArray, total: FloatArray) -> FloatArray:
    divisor = np.where(total >= SMALLEST_TOTAL, total, np.nan)
    return np.asarray(part / divisor, dtype=np.float64)


def _middles(bins: int) -> FloatArray:
    return np.asarray((np.arange(bins) + 0.5) / bins, dtype=np.float64)


def auc(tables: FloatArray) -> FloatArray:
    """Return the area under the ROC curve; two patients in the same bin count as half a win.

    Linear in the cells of each label, so independent noise does not bias the numerator.
    """
    negative, positive = tables[..., 0], tables[..., 1]
    negatives_below = np.cumsum(negative, axis=-1) - negative / 2
    wins = (positive * negatives_below).sum(axis=-1)
    return _ratio(wins, _pairs(negative, positive))


def _pairs(negative: FloatArray, positive: FloatArray) -> FloatArray:
    negatives, positives = negative.sum(axis=-1), positive.sum(axis=-1)
    enough = (negatives >= SMALLEST_TOTAL) & (positives >= SMALLEST_TOTAL)
    return np.asarray(np.where(enough, negatives * positives, 0.0), dtype=np.float64)


def accuracy(tables: FloatArray) -> FloatArray:
    """Return the share of patients whose score is on the right side of one half."""
    half = tables.shape[-2] // 2
    right = tables[..., :half, 0].sum(axis=-1) + tables[..., half:, 1].sum(axis=-1)
    return _ratio(right, tables.sum(axis=(-2, -1)))


def calibration_in_the_large(tables: FloatArray) -> FloatArray:
    """Return observed rate minus mean score, with scores at the middle of their bins."""
    by_score = tables.sum(axis=-1)
    surplus = tables[..., 1].sum(axis=-1) - by_score @ _middles(tables.shape[-2])
    return _ratio(surplus, by_score.sum(axis=-1))


def expected_calibration_error(tables: FloatArray) -> FloatArray:
    """Return the mean |observed rate − score| of the patients' bins (Naeini et al. 2015)."""
    by_score = tables.sum(axis=-1)
    gaps = np.abs(tables[..., 1] - by_score * _middles(tables.shape[-2])).sum(axis=-1)
    return _ratio(gaps, by_score.sum(axis=-1))


def _residuals(tables: FloatArray) -> tuple[FloatArray, FloatArray]:
    by_residual = tables.sum(axis=-1)
    return by_residual, _middles(tables.shape[-2]) - 0.5


def mean_absolute_error(tables: FloatArray) -> FloatArray:
    """Return the mean absolute residual, as a share of the target's range.

    Residuals are taken at the middle of their bins.
    """
    counts, residual = _residuals(tables)
    return _ratio(counts @ np.abs(residual), counts.sum(axis=-1))


def mean_residual(tables: FloatArray) -> FloatArray:
    """Return the mean of prediction minus target, as a share of the target's range."""
    counts, residual = _residuals(tables)
    return _ratio(counts @ residual, counts.sum(axis=-1))


def variance_explained(tables: FloatArray) -> FloatArray:
    """Return R²: one minus mean squared residual over variance of the target.

    Both are from binned values, with Sheppard's correction for the width of the bins.
    """
    counts, residual = _residuals(tables)
    total = counts.sum(axis=-1)
    squared = _ratio(counts @ residual**2, total) - _sheppard(tables.shape[-2])
    by_label, middles = tables.sum(axis=-2), _middles(tables.shape[-1])
    mean = _ratio(by_label @ middles, total)
    variance = _ratio(by_label @ middles**2, total) - mean**2 - _sheppard(tables.shape[-1])
    return np.asarray(1 - squared / np.where(variance > 0, variance, np.nan), dtype=np.float64)


def _sheppard(bins: int) -> float:
    return 1 / (12 * bins**2)


def share_right(tables: FloatArray) -> FloatArray:
    """Return the share of patients whose top class is right, from tables (…, wrong and right)."""
    return _ratio(tables[..., 1], tables.sum(axis=-1))
