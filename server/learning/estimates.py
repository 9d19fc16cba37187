"""Estimates figures with intervals from a noisy table: the interval includes noise and sampling.

The distribution of the noise is public, so its effect can be simulated. The fitted table has the
patient counts that are nearest to the noisy table. Tables are drawn from it (multinomial sampling),
noise of the same distribution is added, and the figure is computed again. The interval is the basic
bootstrap interval, from the spread of these figures about the figure of the fitted table (Davison,
Hinkley 1997, Section 2.4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import FloatArray

CONFIDENCE = 0.95
NORMAL_QUANTILE = round(NormalDist().inv_cdf((1 + CONFIDENCE) / 2), 6)
"""Of the standard normal distribution, for a two-sided interval: 1.959964 at 95 %."""
DRAWS = 1_000
Figure = Callable[[FloatArray], FloatArray]
"""Maps tables (…, bins, labels) to figures (…,). NaN if the figure is undefined for a table."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the estimate as JSON, to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


Figures = Mapping[str, Estimate | None]
"""Figures by name; None for a suppressed one, which is based on too few patients. Never zero."""


def figures_json(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON; a suppressed one is null."""
    return {name: figure.to_json() if figure else None for name, figure in figures.items()}


def cell_noise_std(mechanism: Mechanism, countries: int) -> float:
    """Return the standard deviation of one opened cell, in patients."""
    return float(mechanism.noise_std * np.sqrt(countries) / mechanism.scale)


def simulate_tables(
    table: FloatArray, noise_std: float, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the fitted table, and noisy tables drawn from it: (DRAWS, *table.shape)."""
    fitted = nearest_counts(table)
    total = fitted.sum()
    drawn = generator.multinomial(round(total), fitted.reshape(-1) / total, size=DRAWS)
    tables = drawn + generator.normal(0.0, noise_std, size=drawn.shape)
    return fitted, tables.reshape(DRAWS, *table.shape)


def nearest_counts(table: FloatArray) -> FloatArray:
    """Return the nearest table without negative cells, with the same total (at least 1).

    Euclidean projection onto a simplex (Duchi et al. 2008, Figure 1).
    """
    flat = table.reshape(-1)
    total = max(1.0, float(flat.sum()))
    ordered = np.sort(flat)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(flat) + 1)
    last = np.nonzero(ordered > excess)[0][-1]
    return np.asarray(np.maximum(flat - excess[last], 0.0).reshape(table.shape), dtype=np.float64)


def estimate(
    figures: Sequence[tuple[FloatArray, FloatArray, FloatArray]], limits: tuple[float, float]
) -> Estimate | None:
    """Return the mean of figures, with its interval; None if it must be suppressed.

    Each figure is a tuple: of the observed table, of the fitted table, and DRAWS simulated values.
    Several figures of the same patients are assumed to err in the same direction, which widens the
    interval. The bias of the noise is corrected as far as the simulation shows it.
    """
    observed = float(np.mean([figure for figure, _, _ in figures]))
    centre = float(np.mean([figure for _, figure, _ in figures]))
    drawn = np.mean([np.sort(draws) for _, _, draws in figures], axis=0)
    if not np.isfinite([observed, centre]).all() or not np.isfinite(drawn).all():
        return None
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(drawn, [tail, 1 - tail])
    value = observed - (float(np.median(drawn)) - centre)
    low, high = observed - (upper - centre), observed - (lower - centre)
    return Estimate(*(float(np.clip(number, *limits)) for number in (value, low, high)))
