"""The area under the ROC curve of a table of scores by label, from ranks and places in bins.

Pairs of patients in different bins are ranked exactly. Of pairs in one bin only the mean places of
both labels are known, and how the places are spread. If the odds of a positive rise or fall slowly
over a bin, a positive with mean place p wins against a negative with mean place q in a share
1/2 + worth·(p - q) of them, and the worth of a place is a quarter of Gini's mean difference of the
places, divided by their variance (Yitzhaki, Schechtman 2013).

That mean difference is not known. It is .289·4 standard deviations at most, if places are spread
evenly; .28 is that of a normal distribution, and near to that of other smooth ones. A few distinct
scores, as in models of yes/no features, can make it much smaller. The interval reaches from the
least to the most.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocols.tasks.features import FloatArray
from protocols.tasks.score_table import PLACE_WEIGHT
from server.learning.estimates import Ends, ratio
from server.learning.score_figures import ScoreSums, correlation

NOISIEST_LABEL = 0.2
"""The largest noise of the number of patients with a label, as a part of it, for an AUC."""
MOST_TIED = 0.4
"""The largest share of pairs within one bin: above it, the bins are too coarse for an AUC."""
MOST_IN_BIN, MOST_TIED_THERE = 0.7, 0.1
"""The smaller limit that holds if one bin has more than this share of a label's patients."""
EXTREME = 0.02
"""An area nearer to 0 or 1 has the sampling variance, relative to a(1 - a), of one this near."""
SPREAD_IN_BIN = 1 / 12
"""Variance of a rank among patients of one bin, as a part of the bin's share, squared."""
TILT, MOST_TILT = 0.28, 0.289
"""What one standard deviation of the places is worth: as assumed, and at most (evenly spread)."""


def auc(*classes: ScoreSums) -> Ends:
    """Return the area under the ROC curve; the mean of each class against the others."""
    parts = [_Ranks(each) for each in classes]
    value = np.mean([part.value for part in parts], axis=0)
    sampling = _of_mean([part.sampling for part in parts])
    noise = np.sum([part.noise for part in parts], axis=0) / len(parts) ** 2
    assumed = np.mean([part.assumed for part in parts], axis=0)
    ends = _about(value, sampling, noise + (assumed / 2) ** 2)
    below, above = np.mean([part.doubts for part in parts], axis=0)
    wider = Ends(ends.value, ends.low - below, ends.high + above)
    return wider.where(np.all([part.released for part in parts], axis=0)).within(0.0, 1.0)


def too_coarse(*classes: ScoreSums) -> bool:
    """Return whether the bins of one release are too coarse for an AUC."""
    return any(bool(_Ranks(each).too_coarse) for each in classes)


def _of_mean(variances: list[FloatArray]) -> FloatArray:
    """Return the variance of a mean over classes, whose errors are correlated.

    Two mirrored classes have the same area, so a correlation of 1. Areas of more classes go less
    together than their calibration: in simulations, by about the square.
    """
    classes = len(variances)
    alone = np.sum(variances, axis=0)
    aligned = np.sum(np.sqrt(variances), axis=0) ** 2
    together = correlation(classes) ** 2 * (aligned - alone)
    return np.asarray((alone + together) / classes**2, dtype=np.float64)


def _about(value: FloatArray, sampling: FloatArray, noise: FloatArray) -> Ends:
    """Return the areas a with |value - a| no outlier, if sampling varies in proportion to a(1 - a).

    That is exact for a share, and keeps the interval of an area within 0 and 1.
    """
    inner = np.clip(value, EXTREME, 1 - EXTREME)
    factor = sampling / (inner * (1 - inner))
    one = np.ones_like(value)
    return ratio(value, one, (noise, factor, -factor), 0 * one)


def least_worth(means: FloatArray, spreads: FloatArray) -> FloatArray:
    """Return the least that a place can be worth, given the mean and variance of places in a bin.

    Gini's mean difference is least for two values, one of which is an end of the bin; 1/(2d) is the
    worth then, with d their distance.
    """
    inside = np.clip(np.abs(means), 0.0, 0.999)
    distances = [end + spreads / end for end in (1 + inside, 1 - inside)]
    return np.asarray(0.5 / np.clip(np.maximum(*distances), 0.1, 2.0), dtype=np.float64)


class _Ranks:
    """The ranks of one table: the area, its variances, and what it assumes."""

    def __init__(self, sums: ScoreSums) -> None:
        self._sums = sums
        self._negative, self._positive = sums.counts[..., 0], sums.counts[..., 1]
        self._negatives, self._positives = sums.labels[..., 0], sums.labels[..., 1]
        low, high = sums.placed[..., 0], sums.placed[..., 1]
        negative, positive = self._negative, self._positive
        self._worth = self._trust[..., None] * TILT / np.sqrt(sums.spreads)
        tied = 0.5 + (1 - self._trust)[..., None] * self._expected
        # What one more patient of a label in a bin wins.
        below = np.cumsum(negative, axis=-1) - negative * (1 - tied)
        above = positive.sum(axis=-1, keepdims=True) - np.cumsum(positive, axis=-1)
        self._won_by_positive = below - self._worth * low
        self._won_by_negative = above + positive * tied + self._worth * high
        self._by_place = self._worth * (high * negative - positive * low)
        self._wins = (positive * below + self._by_place).sum(axis=-1)

    @cached_property
    def _expected(self) -> FloatArray:
        """By how much positives win more than half of the pairs of a bin, were scores calibrated.

        Then the mean scores of both labels in a bin differ by var(s)/(m(1 - m)), with m their mean.
        """
        sums, middle = self._sums, self._sums.middles
        apart = sums.spreads * sums.half_widths / (middle * (1 - middle))
        return np.asarray(np.minimum(TILT / np.sqrt(sums.spreads) * apart, 0.5), dtype=np.float64)

    @cached_property
    def _expected_wins(self) -> FloatArray:
        """What the places would add to the area, were scores calibrated, (...)."""
        pairs = np.maximum(self._negative, 0.0) * np.maximum(self._positive, 0.0)
        return np.asarray((pairs * self._expected).sum(axis=-1) / self._pairs, dtype=np.float64)

    @cached_property
    def _trust(self) -> FloatArray:
        """The weight of the places, against what they would be for calibrated scores, (...).

        It is smaller the larger their noise is beside all that they could add.
        """
        squares = (self._negative**2 + self._positive**2) / self._sums.spreads
        noise = (self._sums.noise / PLACE_WEIGHT * TILT) ** 2 * squares.sum(axis=-1)
        expected = self._expected_wins**2
        return np.asarray(expected / (expected + noise / self._pairs**2 + 1e-12), dtype=np.float64)

    @cached_property
    def released(self) -> NDArray[np.bool_]:
        """Whether the numbers of both labels are known well enough."""
        noise = self._sums.noise * np.sqrt(self._sums.bins)
        fewer = np.minimum(self._negatives, self._positives)
        return np.asarray((noise <= NOISIEST_LABEL * fewer) & ~self.too_coarse)

    @cached_property
    def too_coarse(self) -> NDArray[np.bool_]:
        """Whether so many pairs, or patients, are in one bin that places in it matter too much."""
        most = np.where(self._crowded > MOST_IN_BIN, MOST_TIED_THERE, MOST_TIED)
        return np.asarray(self._tied > most)

    @cached_property
    def _crowded(self) -> FloatArray:
        """The largest share of a label's patients that is in one bin."""
        in_one = self._sums.counts.max(axis=-2) / np.maximum(self._sums.labels, 1.0)
        return np.asarray(in_one.max(axis=-1), dtype=np.float64)

    @cached_property
    def _tied(self) -> FloatArray:
        """The share of all pairs whose two patients are in the same bin."""
        tied = (np.maximum(self._negative, 0) * np.maximum(self._positive, 0)).sum(axis=-1)
        return np.asarray(tied / self._pairs, dtype=np.float64)

    @cached_property
    def doubts(self) -> tuple[FloatArray, FloatArray]:
        """How far the area may be below and above, as the worth of a place is not known, (...)."""
        sums = self._sums
        worth = TILT / np.sqrt(sums.spreads)
        less = 1 - np.minimum(least_worth(sums.mean_places, sums.spreads) / worth, 1.0)
        more = MOST_TILT / TILT - 1
        up = np.maximum(self._by_place, 0.0) / self._pairs[..., None]
        down = np.maximum(-self._by_place, 0.0) / self._pairs[..., None]
        below, above = up * less + down * more, down * less + up * more
        return below.sum(axis=-1), above.sum(axis=-1)

    @cached_property
    def assumed(self) -> FloatArray:
        """The part of the area that is not measured but assumed of calibrated scores, (...).

        It counts as two standard deviations: the scores may separate the labels within a bin not at
        all, or twice as well as calibrated ones.
        """
        return np.asarray((1 - self._trust) * self._expected_wins, dtype=np.float64)

    @cached_property
    def _pairs(self) -> FloatArray:
        pairs = np.maximum(self._negatives, 1.0) * np.maximum(self._positives, 1.0)
        return np.asarray(pairs, dtype=np.float64)

    @cached_property
    def value(self) -> FloatArray:
        """The area, (...)."""
        return np.asarray(self._wins / self._pairs, dtype=np.float64)

    @cached_property
    def noise(self) -> FloatArray:
        """Variance of the noise: linear in each label's cells; the product of noises once."""
        area = self.value[..., None]
        by_positive = self._won_by_positive - area * self._negatives[..., None]
        by_negative = self._won_by_negative - area * self._positives[..., None]
        of_places = (self._negative**2 + self._positive**2) * (self._worth / PLACE_WEIGHT) ** 2
        linear = (by_positive**2 + by_negative**2 + of_places).sum(axis=-1)
        square = self._sums.noise**2
        # The wins above are noisy too, so their squares count the product of noises twice.
        twice = square * self._products()
        return np.asarray(
            square * np.maximum(linear - twice, linear / 2) / self._pairs**2, dtype=np.float64
        )

    def _products(self) -> FloatArray:
        """Return the sum over pairs of bins of (1, 1/2 or 0 minus the area)², and of the places."""
        bins, area = self._sums.bins, self.value
        lower = bins * (bins - 1) / 2
        squares = lower * (1 - area) ** 2 + bins * (0.5 - area) ** 2 + lower * area**2
        of_places = 2 * ((self._worth / PLACE_WEIGHT) ** 2).sum(axis=-1)
        return np.asarray(squares + of_places, dtype=np.float64)

    @cached_property
    def sampling(self) -> FloatArray:
        """Variance of sampling patients (DeLong, DeLong, Clarke-Pearson 1988)."""
        of_positives = self._variance_of(self._positive, self._won_by_positive, self._negative)
        of_negatives = self._variance_of(self._negative, self._won_by_negative, self._positive)
        return np.asarray(of_positives + of_negatives, dtype=np.float64)

    def _variance_of(self, label: FloatArray, won: FloatArray, others: FloatArray) -> FloatArray:
        """Return the variance of the mean share of `others` that a patient of a label wins."""
        weights = np.maximum(label, 0.0) + 1e-9
        total = np.maximum(others.sum(axis=-1, keepdims=True), 1.0)
        ranks = np.clip(won / total, 0.0, 1.0)
        within = SPREAD_IN_BIN * (np.maximum(others, 0.0) / total) ** 2
        patients = weights.sum(axis=-1)
        mean = (weights * ranks).sum(axis=-1) / patients
        second = (weights * (ranks**2 + within)).sum(axis=-1) / patients
        return np.asarray((second - mean**2) / np.maximum(patients, 1.0), dtype=np.float64)
