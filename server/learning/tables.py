"""Tables of `stats/count` and `stats/histogram`: noisy counts, intervals, small cells suppressed.

A cell whose noisy count is below the study's smallest cell is None, never zero, and so is its
interval. Only the noisy sum decides whether a cell is suppressed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import Feature
from protocols.tasks.stats import CountByFeature, CountPatients
from server.learning.estimates import NORMAL_QUANTILE, cell_noise_std


@dataclass(frozen=True)
class Cell:
    """One cell: a label for each grouping, and a count with a 95 % interval, rounded outwards."""

    labels: tuple[str, ...]
    count: int | None
    low: int | None
    high: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the cell as JSON; a suppressed count is null."""
        counted = {"count": self.count, "low": self.low, "high": self.high}
        return {"labels": list(self.labels), **counted, "suppressed": self.count is None}


@dataclass(frozen=True)
class Table:
    """A released table; `groupings` names the feature of each label."""

    groupings: tuple[str, ...]
    cells: tuple[Cell, ...]
    smallest_cell: int
    noise_std: float

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON."""
        return {
            "groupings": list(self.groupings),
            "smallest_cell": self.smallest_cell,
            "noise_std": round(self.noise_std, 3),
            "cells": [cell.to_json() for cell in self.cells],
        }


def read_table(
    task: CountPatients | CountByFeature,
    features: Sequence[Feature],
    mechanism: Mechanism,
    opened: NDArray[np.int64],
    *,
    countries: int,
) -> Table:
    """Return the table of an opened lattice sum over `countries` contributions."""
    noise = cell_noise_std(mechanism, countries)
    counts = opened / mechanism.scale
    pairs = zip(task.cells(features), counts.tolist(), strict=True)
    return Table(
        groupings=tuple(grouping.feature for grouping in task.groupings),
        cells=tuple(_cell(labels, count, noise, task.smallest_cell) for labels, count in pairs),
        smallest_cell=task.smallest_cell,
        noise_std=noise,
    )


def _cell(labels: tuple[str, ...], count: float, noise: float, smallest: int) -> Cell:
    if count < smallest:
        return Cell(labels, None, None, None)
    reach = NORMAL_QUANTILE * noise
    low, high = math.floor(count - reach), math.ceil(count + reach)
    return Cell(labels, round(count), max(0, low), high)
