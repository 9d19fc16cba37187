"""The expected calibration error with an interval, from the noisy gaps of the score bins.

The gap of a bin is observed outcomes minus expected ones: Σ (y - s) over its patients. The error is
the sum of the absolute gaps divided by the number of patients (Naeini, Cooper, Hauskrecht 2015), in
the whole population that the held-out patients are drawn from. Sampling and noise lengthen every
absolute gap, so the observed sum T is far too large if the model is well calibrated. Therefore a
test is inverted: the interval holds every error under which T is no outlier (Lehmann, Romano 2005,
Section 3.5), and the value is the error under which T is as expected.

How T varies depends on how an error is divided among the bins. A gap of more than `SURE` standard
deviations is taken as it was observed. The others cannot be distinguished from noise: they share
what is left of the error in proportion to their observed sizes. An error that is smaller than the
sum of the sure gaps leaves nothing for the others, and reduces the sure gaps in proportion.
With Z normal, |gap + deviation·Z| has the mean and variance of the folded normal distribution
(Leone, Nelson, Nottingham 1961). T, a sum over the bins, is treated as normal.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from protocols.tasks.features import FloatArray
from server.learning.estimates import NORMAL_QUANTILE

SURE = 2.75
"""Standard deviations from which on a gap is taken as observed. For 2 to 3, simulated coverage of
the 95 % interval was .92 to .99: a lower number widens it if there are many small gaps, a higher
one if there are a few large gaps."""
HALVINGS = 50
"""Of the range that is searched for an error."""
FURTHEST = 4.0
"""The search ends this many standard deviations of every gap above the observed error."""
SMALLEST_SPREAD = 0.01
"""Least variance of T, as a part of the largest variance of a gap."""


@dataclass(frozen=True)
class CalibrationGaps:
    """Noisy gaps of the bins, with their variances: noise and sampling, both (..., bins).

    `patients` (...) is the noisy number of patients in all bins; it must be above zero. `together`
    is by how much the variance of T exceeds that of independent bins: the bins of several classes
    hold the same patients.
    """

    gaps: FloatArray
    variances: FloatArray
    patients: FloatArray
    together: FloatArray | float = 1.0

    def interval(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return value, lower and upper end of the error, each (...), as shares of the patients.

        If T is smaller than it should be without any error, the upper end is that of the expected
        T: an interval from zero to zero would claim a precision that nobody has.
        """
        least = np.maximum(self._observed, self._mean_and_spread(0 * self._observed)[0])
        value = self._error_at(0.0, self._observed)
        low = self._error_at(NORMAL_QUANTILE, self._observed)
        high = self._error_at(-NORMAL_QUANTILE, least)
        shares = [np.clip(end / self.patients, 0.0, 1.0) for end in (value, low, high)]
        return shares[0], shares[1], shares[2]

    def _error_at(self, z: float, observed: FloatArray) -> FloatArray:
        """Return the error, in patients, under which T is z standard deviations above its mean.

        It is zero if T is less than that without any error. T's mean rises with the error.
        """
        low = np.zeros_like(observed)
        high = observed + FURTHEST * self._deviations.sum(axis=-1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            mean, spread = self._mean_and_spread(middle)
            beyond = observed - mean > z * spread
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        return low

    def _mean_and_spread(self, error: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of T, each (...), under an error in patients."""
        mean, variance = folded_normal(self._divided(error), self._deviations)
        # All bins together have a fixed number of patients, so their parts of an error vary less
        # together than each by itself.
        spread = variance.sum(axis=-1) - error**2 / np.maximum(self.patients, 1.0)
        spread = self.together * spread
        least = SMALLEST_SPREAD * self.variances.max(axis=-1)
        return mean.sum(axis=-1), np.sqrt(np.maximum(spread, least))

    def _divided(self, error: FloatArray) -> FloatArray:
        """Return the part of an error in each bin, (..., bins)."""
        sure, others = self._sure_and_others
        in_sure, in_others = (sizes.sum(axis=-1) for sizes in (sure, others))
        for_sure = np.where(in_others > 0, np.minimum(error, in_sure), error)
        parts = _shared(sure, for_sure, in_sure), _shared(others, error - for_sure, in_others)
        return np.asarray(parts[0] + parts[1], dtype=np.float64)

    @cached_property
    def _deviations(self) -> FloatArray:
        return np.sqrt(self.variances)

    @cached_property
    def _observed(self) -> FloatArray:
        return np.asarray(np.abs(self.gaps).sum(axis=-1), dtype=np.float64)

    @cached_property
    def _sure_and_others(self) -> tuple[FloatArray, FloatArray]:
        sizes = np.abs(self.gaps)
        sure = sizes > SURE * self._deviations
        return np.where(sure, sizes, 0.0), np.where(sure, 0.0, sizes)


def _shared(sizes: FloatArray, amount: FloatArray, total: FloatArray) -> FloatArray:
    share = amount / np.where(total > 0, total, 1.0)
    return np.asarray(sizes * share[..., None], dtype=np.float64)


def folded_normal(size: FloatArray, deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of |size + deviation·Z|, Z standard normal; deviation above zero."""
    from scipy.special import ndtr  # noqa: PLC0415 (slow; only an evaluation needs it)

    ratio = size / deviation
    density = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    mean = deviation * (2 * density + ratio * (2 * ndtr(ratio) - 1))
    return mean, np.maximum(size**2 + deviation**2 - mean**2, 0.0)
