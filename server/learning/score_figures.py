"""Figures of a table of scores by label: accuracy and calibration. `auc` is a module of its own.

Every function takes tables with any leading axes, so that the same code serves one release and a
thousand simulated ones. The exact sum of the scores in a bin follows from its counts and from the
scores' places in it, so no figure depends on where in its bin a score is.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from protocols.tasks.features import FloatArray
from protocols.tasks.score_table import PLACE_WEIGHT, half_widths_of, middles_of
from protocols.tasks.training import HALF
from server.learning.calibration_error import CalibrationGaps
from server.learning.estimates import NOISIEST, Ends, ratio

FEWEST_IN_BIN = 40
"""Patients for each bin, on average, below which the variance of a bin's gap is too uncertain."""
NOISE_IN_BIN = 0.2
"""The same limit for the noise of a cell, as a part of a bin's average number of patients."""
EVEN_SPREAD = 1 / 3
"""Variance of places that are spread evenly from -1 to 1."""
LEAST_SPREAD = 0.01
DOUBTFUL = 4
"""With as many patients as this many standard deviations of the noise of places, a bin counts half
as spread evenly, and half as it seems to be."""


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
    def mean_places(self) -> FloatArray:
        """The mean place in each bin, (..., bins)."""
        mean = self.placed.sum(axis=-1) / np.maximum(self.in_bins, 1.0)
        return np.asarray(np.clip(mean, -1.0, 1.0), dtype=np.float64)

    @cached_property
    def spreads(self) -> FloatArray:
        """The variance of the places in each bin, that of an even spread if few are in it."""
        if self.squares is None:
            return np.full_like(self.in_bins, EVEN_SPREAD)
        square = self.squares / np.maximum(self.in_bins, 1.0) + 1 / 2
        spread = np.clip(square - self.mean_places**2, 0.0, 1.0)
        patients = np.maximum(self.in_bins, 0.0) ** 2
        known = patients / (patients + (DOUBTFUL * self.noise / PLACE_WEIGHT) ** 2)
        blended = known * spread + (1 - known) * EVEN_SPREAD
        return np.asarray(np.maximum(blended, LEAST_SPREAD), dtype=np.float64)

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
    together = correlation(len(classes)) * total / (total + noise.sum(axis=-1))
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


def correlation(classes: int) -> float:
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
