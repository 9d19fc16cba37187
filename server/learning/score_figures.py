"""Figures of a table of scores by label: accuracy, calibration, AUC.

Every function takes tables with any leading axes, so that the same code serves one release and a
thousand simulated ones. The exact sum of the scores in a bin follows from its counts and from the
scores' places in it, so no figure depends on where in its bin a score is; the AUC nearly so.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocols.tasks.features import FloatArray
from protocols.tasks.score_table import PLACE_WEIGHT, half_widths_of, middles_of
from protocols.tasks.training import HALF
from server.learning.calibration_error import CalibrationGaps
from server.learning.estimates import NOISIEST, Ends, ratio

FEWEST_IN_BIN = 40
"""Patients for each bin, on average, below which the variance of a bin's gap is too uncertain."""
NOISE_IN_BIN = 0.2
"""The same limit for the noise of a cell, as a part of a bin's average number of patients."""
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
EVEN_SPREAD = 1 / 3
"""Variance of places that are spread evenly from -1 to 1."""
LEAST_SPREAD = 0.01
DOUBTFUL = 2
"""A bin counts as spread evenly by as many patients as this many standard deviations of noise."""
TILT = 0.27
"""What one standard deviation of the places is worth in a comparison of two patients of one bin: a
quarter of Gini's mean difference. It is .289 for places that are spread evenly, .282 for a normal
distribution, .25 for an exponential one and for two values (Yitzhaki, Schechtman 2013)."""
TILT_DOUBT = 0.05
"""How far `TILT` may be off, as a part of it."""


@dataclass(frozen=True)
class ScoreSums:
    """Opened sums of one group and class, in patients.

    `counts` and `places` are (..., bins, labels): patients, and the sums of their scores' places in
    their bins, -1 to 1. `squares` (..., bins) are the sums of squared places minus 1/2. A table of
    an earlier version has neither places nor squares. `edges` (bins + 1,) hold 0 and 1. `noise` is
    the standard deviation of one count; that of places and squares is `noise`/`PLACE_WEIGHT`.
    """

    edges: FloatArray
    counts: FloatArray
    noise: float
    places: FloatArray | None = None
    squares: FloatArray | None = None

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1

    @cached_property
    def in_bins(self) -> FloatArray:
        """Patients in each bin, (..., bins)."""
        return np.asarray(self.counts.sum(axis=-1), dtype=np.float64)

    @cached_property
    def labels(self) -> FloatArray:
        """Patients with each label, (..., labels)."""
        return np.asarray(self.counts.sum(axis=-2), dtype=np.float64)

    @cached_property
    def patients(self) -> FloatArray:
        """Number of patients, (...)."""
        return np.asarray(self.in_bins.sum(axis=-1), dtype=np.float64)

    @property
    def patients_noise(self) -> float:
        """Standard deviation of the noise of `patients`."""
        return float(self.noise * np.sqrt(self.counts.shape[-1] * self.bins))

    @cached_property
    def middles(self) -> FloatArray:
        """The middle of each bin."""
        return middles_of(self.edges)

    @cached_property
    def half_widths(self) -> FloatArray:
        """Half the width of each bin."""
        return half_widths_of(self.edges)

    @cached_property
    def placed(self) -> FloatArray:
        """The places, zero (the middle of the bin) if the table has none: (..., bins, labels)."""
        return np.zeros_like(self.counts) if self.places is None else self.places

    @cached_property
    def spreads(self) -> FloatArray:
        """The variance of the places in each bin, that of an even spread if few are in it."""
        if self.squares is None:
            return np.full_like(self.in_bins, EVEN_SPREAD)
        doubt = DOUBTFUL * self.noise / PLACE_WEIGHT
        patients = np.maximum(self.in_bins, 0.0)
        square = (self.squares + patients / 2 + doubt * EVEN_SPREAD) / (patients + doubt)
        mean = self.placed.sum(axis=-1) / (patients + doubt)
        return np.asarray(np.clip(square - mean**2, LEAST_SPREAD, 1.0), dtype=np.float64)

    @cached_property
    def score_sums(self) -> FloatArray:
        """The exact sum of the scores in each bin, but for noise: (..., bins)."""
        places = self.placed.sum(axis=-1)
        return np.asarray(self.middles * self.in_bins + self.half_widths * places, dtype=np.float64)

    @cached_property
    def mean_scores(self) -> FloatArray:
        """The mean score in each bin, within the bin's edges: (..., bins)."""
        mean = self.score_sums / np.maximum(self.in_bins, 1.0)
        mean = np.where(self.in_bins > 1.0, mean, self.middles)
        return np.asarray(np.clip(mean, self.edges[:-1], self.edges[1:]), dtype=np.float64)

    @cached_property
    def squared_misses(self) -> FloatArray:
        """(y - s)² of each cell, with s the bin's mean score: (..., bins, labels)."""
        mean = self.mean_scores
        return np.stack([mean**2, (1 - mean) ** 2], axis=-1)


def accuracy(sums: ScoreSums) -> Ends:
    """Return the share of patients whose score is on the right side of one half."""
    half = int(np.searchsorted(sums.edges, HALF))
    right = sums.counts[..., :half, 0].sum(axis=-1) + sums.counts[..., half:, 1].sum(axis=-1)
    return share(right, sums.patients, sums.noise, cells=sums.bins)


def share(part: FloatArray, total: FloatArray, noise: float, *, cells: int) -> Ends:
    """Return part/total, of which both the part and the rest are sums of `cells` noisy counts."""
    cell = np.asarray(cells * noise**2)
    # binomial: total·θ(1 - θ); noise: `cells` counts with weight 1 - θ, and as many with weight θ
    variance = (cell, total - 2 * cell, 2 * cell - total)
    return ratio(part, total, variance, np.asarray(noise * np.sqrt(2 * cells))).within(0.0, 1.0)


def calibration_in_the_large(sums: ScoreSums) -> Ends:
    """Return observed rate minus mean score."""
    patients, scores = sums.patients, sums.score_sums.sum(axis=-1)
    positives = sums.labels[..., 1]
    # Were the figure θ, the rate would be the mean score plus θ. So the sampling variance is that
    # of so many patients with each label, not of those who happen to be in the table.
    no, yes = _mean_squared_misses(sums)
    twice = 2 * sums.noise**2
    variance = (
        scores * yes + (patients - scores) * no + _gap_noise(sums).sum(),
        patients * (yes - no) + twice * (2 * sums.middles - 1).sum(),
        twice * sums.bins - patients,
    )
    noise = np.asarray(sums.patients_noise)
    return ratio(positives - scores, patients, variance, noise).within(-1.0, 1.0)


def _mean_squared_misses(sums: ScoreSums) -> tuple[FloatArray, FloatArray]:
    """Return the mean of (y - s)² of patients with label no, and with label yes, both (...)."""
    weights = np.maximum(sums.counts, 0.0) + 1e-9
    means = (weights * sums.squared_misses).sum(axis=-2) / weights.sum(axis=-2)
    return means[..., 0], means[..., 1]


def calibration_gaps(*classes: ScoreSums) -> CalibrationGaps:
    """Return the gaps of all bins: of one class, or of several classes one after the other."""
    gaps = np.concatenate([each.counts[..., 1] - each.score_sums for each in classes], axis=-1)
    noise = np.concatenate(
        [np.broadcast_to(_gap_noise(each), each.in_bins.shape) for each in classes], axis=-1
    )
    sampling = np.concatenate([_gap_sampling(each) for each in classes], axis=-1)
    total = sampling.sum(axis=-1)
    together = _correlation(len(classes)) * total / (total + noise.sum(axis=-1))
    patients = np.sum([each.patients for each in classes], axis=0)
    return CalibrationGaps(gaps, noise + sampling, patients, 1 + together)


def _gap_noise(sums: ScoreSums) -> FloatArray:
    """Return the variance of the noise of each bin's gap, (bins,)."""
    of_places = 2 * (sums.half_widths / PLACE_WEIGHT) ** 2
    weights = (1 - sums.middles) ** 2 + sums.middles**2 + of_places
    return np.asarray(sums.noise**2 * weights, dtype=np.float64)


def _gap_sampling(sums: ScoreSums) -> FloatArray:
    """Return the variance of each bin's gap that comes from sampling its patients, (..., bins)."""
    sampled = (sums.counts * sums.squared_misses).sum(axis=-1)
    # A few noisy patients may seem to have no variance: at least half that of a calibrated model.
    mean = sums.mean_scores
    least = np.maximum(sums.in_bins, 0.0) * mean * (1 - mean) / 2
    return np.asarray(np.maximum(sampled, least), dtype=np.float64)


def _correlation(classes: int) -> float:
    """Return how far errors of classes go together: of two, one is the mirror of the other.

    The same patients are in each class, as one of few or of many.
    """
    return 1 / (classes - 1) if classes > 1 else 0.0


def expected_calibration_error(*classes: ScoreSums) -> Ends:
    """Return the mean |observed rate - mean score| of the patients' bins; a mean over classes."""
    first = classes[0]
    released = first.patients >= np.maximum(
        first.patients_noise / NOISIEST,
        first.bins * max(FEWEST_IN_BIN, first.noise / NOISE_IN_BIN),
    )
    with np.errstate(all="ignore"):
        return Ends(*calibration_gaps(*classes).interval()).where(released)


def auc(*classes: ScoreSums) -> Ends:
    """Return the area under the ROC curve; the mean of each class against the others."""
    parts = [_Ranks(each) for each in classes]
    value = np.mean([part.value for part in parts], axis=0)
    sampling = _of_mean([part.sampling for part in parts])
    noise = np.sum([part.noise for part in parts], axis=0) / len(parts) ** 2
    ends = _about(value, sampling, noise)
    doubt = np.mean([part.doubt for part in parts], axis=0)
    wider = Ends(ends.value, ends.low - doubt, ends.high + doubt)
    return wider.where(np.all([part.released for part in parts], axis=0)).within(0.0, 1.0)


def too_coarse(*classes: ScoreSums) -> bool:
    """Return whether the bins of one release are too coarse for an AUC."""
    return any(bool(_Ranks(each).too_coarse) for each in classes)


def _of_mean(variances: list[FloatArray]) -> FloatArray:
    """Return the variance of a mean over classes, whose errors are correlated."""
    classes = len(variances)
    alone = np.sum(variances, axis=0)
    aligned = np.sum(np.sqrt(variances), axis=0) ** 2
    together = _correlation(classes) * (aligned - alone)
    return np.asarray((alone + together) / classes**2, dtype=np.float64)


def _about(value: FloatArray, sampling: FloatArray, noise: FloatArray) -> Ends:
    """Return the areas a with |value - a| no outlier, if sampling varies in proportion to a(1 - a).

    That is exact for a share, and keeps the interval of an area within 0 and 1.
    """
    inner = np.clip(value, EXTREME, 1 - EXTREME)
    factor = sampling / (inner * (1 - inner))
    one = np.ones_like(value)
    return ratio(value, one, (noise, factor, -factor), 0 * one)


class _Ranks:
    """The area under the ROC curve of one table, from ranks between bins and places within.

    Within a bin, a positive with mean place p wins against a negative with mean place q in a share
    1/2 + worth·(p - q) of all pairs, if the odds of a positive rise or fall slowly over the bin.
    """

    def __init__(self, sums: ScoreSums) -> None:
        self._sums, self._worth = sums, TILT / np.sqrt(sums.spreads)
        negative, positive = sums.counts[..., 0], sums.counts[..., 1]
        low, high = sums.placed[..., 0], sums.placed[..., 1]
        self._negative, self._positive = negative, positive
        self._negatives, self._positives = sums.labels[..., 0], sums.labels[..., 1]
        # What one more patient of a label in a bin wins.
        below = np.cumsum(negative, axis=-1) - negative / 2
        above = positive.sum(axis=-1, keepdims=True) - np.cumsum(positive, axis=-1) + positive / 2
        self._won_by_positive = below - self._worth * low
        self._won_by_negative = above + self._worth * high
        self._by_place = self._worth * (high * negative - positive * low)
        self._wins = (positive * below + self._by_place).sum(axis=-1)

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
    def doubt(self) -> FloatArray:
        """How far the area may be off because of the distribution of places within bins."""
        off = TILT_DOUBT * np.abs(self._by_place.sum(axis=-1))
        return np.asarray(off / self._pairs, dtype=np.float64)

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
