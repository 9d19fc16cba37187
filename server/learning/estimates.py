"""Figures with intervals from a noisy table: the interval counts both noise and sampling.

The law of the noise is public, so its effect is simulated: tables are drawn from the patients
that the noisy table suggests (multinomial sampling), noise of the same law is added, and the
figure is computed again. The interval is the basic bootstrap's, from the spread of these about
the figure of the suggested table (Davison, Hinkley 1997, Section 2.4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import FloatArray

CONFIDENCE = 0.95
TWO_SIDED = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
DRAWS = 1_000
Figure = Callable[[FloatArray], FloatArray]
"""Maps tables (…, bins, labels) to figures (…,). NaN where a table gives none."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the estimate as JSON, to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


Suppressed = None
"""A figure that is not shown because too few patients stand behind it. Never zero."""
Figures = Mapping[str, Estimate | None]


def figures_json(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON; a suppressed one is null."""
    return {name: one.to_json() if one else None for name, one in figures.items()}


def count_noise(mechanism: Mechanism, countries: int) -> float:
    """Return the standard deviation of one opened cell, in patients."""
    return float(mechanism.noise_std * np.sqrt(countries) / mechanism.scale)


def simulated(
    table: FloatArray, noise: float, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the suggested table and tables drawn from it, (DRAWS, *table.shape), with noise."""
    suggested = nearest_counts(table)
    total = suggested.sum()
    drawn = generator.multinomial(round(total), suggested.reshape(-1) / total, size=DRAWS)
    tables = drawn + generator.normal(0.0, noise, size=drawn.shape)
    return suggested, tables.reshape(DRAWS, *table.shape)


def nearest_counts(table: FloatArray) -> FloatArray:
    """Return the table without negative cells that is nearest, with the same total (at least 1).

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
    """Return the mean of figures, each given as (observed, suggested, drawn (DRAWS,)).

    Several figures of the same patients are taken to err together, which widens the interval.
    Corrects the bias that the noise brings, as far as the simulation shows it.
    """
    observed = float(np.mean([one for one, _, _ in figures]))
    centre = float(np.mean([one for _, one, _ in figures]))
    drawn = np.mean([np.sort(one) for _, _, one in figures], axis=0)
    if not np.isfinite([observed, centre]).all() or not np.isfinite(drawn).all():
        return Suppressed
    tail = (1 - CONFIDENCE) / 2
    below, above = np.quantile(drawn, [tail, 1 - tail])
    value = observed - (float(np.median(drawn)) - centre)
    low, high = observed - (above - centre), observed - (below - centre)
    return Estimate(*(float(np.clip(one, *limits)) for one in (value, low, high)))
