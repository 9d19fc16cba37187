"""Estimates with 95 % intervals that include noise and sampling.

A figure θ is the ratio of two sums, A/N, of what patients add and of their number. For every θ the
difference A - θN has a known mean, zero, and a variance that is a quadratic function of θ: of the
noise, which is public, and of the sampling of patients, as it would be if θ were true. The interval
holds every θ whose difference is within `NORMAL_QUANTILE` standard deviations of zero (Fieller
1954; for a share without noise it is that of Wilson 1927).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import FloatArray

CONFIDENCE = 0.95
NORMAL_QUANTILE = round(NormalDist().inv_cdf((1 + CONFIDENCE) / 2), 6)
"""Of the standard normal distribution, for a two-sided interval: 1.959964 at 95 %."""
DECIMALS = 6
NOISIEST = 0.1
"""The largest noise of a denominator, as a part of it, with which a figure is released. Above it
the normal approximations that intervals rely on fail."""


class Unreleased(StrEnum):
    """Why a figure has no value, although its group has enough patients."""

    TOO_NOISY = "too noisy"
    """The noise is so large beside the number of patients that no interval would be right."""
    TOO_COARSE = "too coarse"
    """The bins do not give the figure: nearly all patients are in one or two of them, or the study
    is of an earlier version, whose table has only counts."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the estimate as JSON, to six decimals; the interval is rounded outwards."""
        unit = 10**DECIMALS
        return {
            "value": round(self.value, DECIMALS),
            "low": math.floor(self.low * unit) / unit,
            "high": math.ceil(self.high * unit) / unit,
        }


Figure = Estimate | Unreleased | None
"""None for a suppressed figure, which is based on too few patients. Never zero."""


def figure_json(figure: Figure) -> dict[str, float] | str | None:
    """Return a figure as JSON: its interval, or why there is none; null if suppressed."""
    return figure.to_json() if isinstance(figure, Estimate) else figure and figure.value


def figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return figures as JSON, by name."""
    return {name: figure_json(figure) for name, figure in figures.items()}


class Ends(NamedTuple):
    """Values with the ends of their intervals, each (...); not a number where too noisy."""

    value: FloatArray
    low: FloatArray
    high: FloatArray

    def within(self, lowest: float, highest: float) -> "Ends":
        """Return the same, clipped to what the figure can be."""
        return Ends(*(np.clip(each, lowest, highest) for each in self))

    def where(self, released: NDArray[np.bool_]) -> "Ends":
        """Return the same where `released` is true, and not a number elsewhere."""
        return Ends(*(np.where(released, each, np.nan) for each in self))

    def figure(self) -> Figure:
        """Return one estimate; too noisy if an end is not a number."""
        value, low, high = (float(each) for each in self)
        if not all(map(math.isfinite, (value, low, high))):
            return Unreleased.TOO_NOISY
        return Estimate(min(max(value, low), high), low, high)


def cell_noise_std(mechanism: Mechanism, countries: int) -> float:
    """Return the standard deviation of one opened cell, in patients."""
    return float(mechanism.noise_std * np.sqrt(countries) / mechanism.scale)


def ratio(
    amount: FloatArray,
    total: FloatArray,
    variance: tuple[FloatArray, FloatArray, FloatArray],
    noise: FloatArray,
) -> Ends:
    """Return amount/total with the ends between which |amount - θ·total| is no outlier, all (...).

    `variance` holds the coefficients of 1, θ and θ² in the variance of amount - θ·total. `noise` is
    the standard deviation of the total's noise: above `NOISIEST` of the total nothing is returned.
    """
    square = NORMAL_QUANTILE**2
    constant, linear, quadratic = variance
    a = total**2 - square * quadratic
    b = -2 * amount * total - square * linear
    c = amount**2 - square * constant
    with np.errstate(all="ignore"):
        root = np.sqrt(np.maximum(b**2 - 4 * a * c, 0.0))
        ends = Ends(amount / total, (-b - root) / (2 * a), (-b + root) / (2 * a))
    return ends.where((a > 0) & (total > 0) & (noise <= NOISIEST * total))
