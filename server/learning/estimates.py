"""Estimates figures with intervals from a noisy table: the interval includes noise and sampling.

The distribution of the noise is public, so its effect can be simulated. Tables are drawn from the
patient counts that the noisy table suggests (multinomial sampling), noise of the same distribution
is added, and the figure is computed again. The interval is the basic bootstrap interval, from the
spread of these figures about the figure of the suggested table (Davison, Hinkley 1997, Section
2.4).
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
"""Maps tables (…, bins, labels) to figures (…,). NaN if a table does not define the figure."""


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
"""A figure that is not shown, because it is based on too few patients. Never zero."""
Figures = Mapping[str, Estimate | None]


def figures_json(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON; a suppressed one is null."""
    return {name: figure.to_json() if figure else None for name, figure in figures.items()}


def count_noise(mechanism: Mechanism, countries: int) -> float:
    """Return the standard deviation of one opened cell, in patients."""
    return float(mechanism.noise_std * np.sqrt(countries) / mechanism.scale)


def simulated(
    table: FloatArray, noise: float, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the suggested table, and noisy tables drawn from it: (DRAWS, *table.shape)."""
    suggested = nearest_counts(table)
    total = suggested.sum()
    drawn = generator.multinomial(round(total), suggested.reshape(-1) / total, size=DRAWS)
    tables = drawn + generator.normal(0.0, noise, size=drawn.shape)
    return suggested, tables.reshape(DRAWS, *table.shape)


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
    """Return the mean of figures, each given as (observed, suggested, drawn (DRAWS,)).

    Several figures of the same patients are assumed to err in the same direction, which widens the
    interval. The bias of the noise is corrected as far as the simulation shows it.
    """
    observed = float(np.mean([figure for figure, _, _ in figures]))
    centre = float(np.mean([figure for _, figure, _ in figures]))
    drawn = np.mean([np.sort(draws) for _, _, draws in figures], axis=0)
    if not np.isfinite([observed, centre]).all() or not np.isfinite(drawn).all():
        return Suppressed
    tail = (1 - CONFIDENCE) / 2
    below, above = np.quantile(drawn, [tail, 1 - tail])
    value = observed - (float(np.median(drawn)) - centre)
    low, high = observed - (above - centre), observed - (below - centre)
    return Estimate(*(float(np.clip(number, *limits)) for number in (value, low, high)))
