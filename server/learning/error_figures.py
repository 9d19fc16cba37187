"""Figures of the errors of a numeric target: mean absolute error, mean error, R².

The sums are exact but for noise (`protocols.tasks.error_table`). Errors are shares of the target's
range. Every function takes sums with any leading axes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from protocols.tasks.error_table import LABEL_BINS, TARGET_WEIGHT
from protocols.tasks.features import FloatArray
from server.learning.estimates import Ends, ratio

NOISIEST_VARIANCE = 0.2
"""The largest noise of the target's sum of squares, as a part of it, for an R²."""
FEWEST = 500
"""Patients below which the variance of their squared errors is too uncertain for an R²."""
POSITION_UNIT = 4
"""Squares of the target's position, from -1 to 1, are four times those of shares of its range."""


@dataclass(frozen=True)
class ErrorSums:
    """Opened sums of one group. `edges` (error bins + 1,) hold 0 and 1.

    `counts` (..., error bins, label bins) are patients by |r| and y; `moments` (..., 5) the sums of
    max(r, 0), max(-r, 0), r², y and y² - 1/2. `noise` is the standard deviation of one count and of
    the first three moments; that of the last two is `noise`/`TARGET_WEIGHT`.
    """

    edges: FloatArray
    counts: FloatArray
    moments: FloatArray
    noise: float

    @cached_property
    def patients(self) -> FloatArray:
        """Number of patients, (...)."""
        return np.asarray(self.counts.sum(axis=(-2, -1)), dtype=np.float64)

    @property
    def cells(self) -> int:
        """Number of counts."""
        return int(np.prod(self.counts.shape[-2:]))

    @property
    def patients_noise(self) -> float:
        """Standard deviation of the noise of `patients`."""
        return float(self.noise * np.sqrt(self.cells))

    @cached_property
    def mean_square(self) -> FloatArray:
        """The mean of r², at least the square of the mean |r|, (...)."""
        patients = np.maximum(self.patients, 1.0)
        size = (self.moments[..., 0] + self.moments[..., 1]) / patients
        return np.asarray(np.maximum(self.moments[..., 2] / patients, size**2), dtype=np.float64)


def mean_absolute_error(sums: ErrorSums) -> Ends:
    """Return the mean absolute error, as a share of the target's range."""
    return _mean(sums, sums.moments[..., 0] + sums.moments[..., 1]).within(0.0, 1.0)


def mean_residual(sums: ErrorSums) -> Ends:
    """Return the mean of prediction minus target, as a share of the target's range."""
    return _mean(sums, sums.moments[..., 0] - sums.moments[..., 1]).within(-1.0, 1.0)


def _mean(sums: ErrorSums, amount: FloatArray) -> Ends:
    square, patients = sums.noise**2, sums.patients
    variance = (
        patients * sums.mean_square + 2 * square,
        np.zeros_like(patients),
        sums.cells * square - patients,
    )
    return ratio(amount, patients, variance, np.asarray(sums.patients_noise))


def variance_explained(sums: ErrorSums) -> Ends:
    """Return R²: one minus the squared errors over the target's squared deviations."""
    patients = np.maximum(sums.patients, 1.0)
    mean = np.clip(sums.moments[..., 3] / patients, -1.0, 1.0)
    squared = sums.moments[..., 4] + patients / 2
    # The square of a noisy sum is too large by its variance.
    position_noise = (sums.noise / TARGET_WEIGHT) ** 2
    total = (squared - (mean**2 * patients - position_noise / patients)) / POSITION_UNIT
    by_patients = (0.5 + mean**2) ** 2 * sums.cells * sums.noise**2
    total_noise = (position_noise * (1 + 4 * mean**2) + by_patients) / POSITION_UNIT**2
    sampling = _sampling(sums, mean, total / patients)
    variance = (
        sums.noise**2 + patients * sampling[0],
        -2 * patients * sampling[1],
        total_noise + patients * sampling[2],
    )
    enough = np.sqrt(total_noise) <= NOISIEST_VARIANCE * total
    unexplained = ratio(sums.moments[..., 2], total, variance, 0 * total)
    flipped = Ends(1 - unexplained.value, 1 - unexplained.high, 1 - unexplained.low)
    enough &= sums.patients >= FEWEST
    known = enough & (sums.patients_noise <= NOISIEST_VARIANCE / 2 * sums.patients)
    return flipped.where(known).within(-np.inf, 1.0)


def _sampling(
    sums: ErrorSums, mean: FloatArray, deviation: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return var(r²), cov(r², d²) and var(d²) of one patient, d the target minus its mean.

    From the counts, as if targets were spread evenly within a cell, and errors evenly by their
    logarithm, since large ones are rarer; the sizes of r² and d² are those of the exact moments.
    """
    shares = np.maximum(sums.counts, 0.0) + 1e-9
    shares = shares / shares.sum(axis=(-2, -1), keepdims=True)
    errors = _falling_moments(sums.edges[:-1], sums.edges[1:])
    edges = (np.linspace(-1, 1, LABEL_BINS + 1) - mean[..., None]) / 2
    targets = _even_moments(edges[..., :-1], edges[..., 1:])
    by_error, by_target = shares.sum(axis=-1), shares.sum(axis=-2)
    e2, e4 = ((by_error * moment).sum(axis=-1) for moment in errors)
    d2, d4 = ((by_target * moment).sum(axis=-1) for moment in targets)
    both = (shares * errors[0][:, None] * targets[0][..., None, :]).sum(axis=(-2, -1))
    error_scale = sums.mean_square / e2
    target_scale = np.maximum(deviation, 0.0) / d2
    return (
        error_scale**2 * np.maximum(e4 - e2**2, 0.0),
        error_scale * target_scale * (both - e2 * d2),
        target_scale**2 * np.maximum(d4 - d2**2, 0.0),
    )


def _falling_moments(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the means of x² and x⁴ for ln x spread evenly between two edges; x if one is zero."""
    square, fourth = _even_moments(low, high)
    positive = low > 0
    ratio_of = np.log(high[positive] / low[positive])
    square[positive] = (high[positive] ** 2 - low[positive] ** 2) / (2 * ratio_of)
    fourth[positive] = (high[positive] ** 4 - low[positive] ** 4) / (4 * ratio_of)
    return square, fourth


def _even_moments(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the means of x² and x⁴ for x spread evenly between two edges."""
    width = high - low
    return (high**3 - low**3) / (3 * width), (high**5 - low**5) / (5 * width)
