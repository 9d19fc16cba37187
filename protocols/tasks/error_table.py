"""Evaluation of a numeric target: sums of errors, and counts of patients by size of the error.

Let r be the error, prediction minus target as a share of the target's range (-1 to 1), and y the
target's position in its range (-1 to 1). A held-out patient adds five moments: max(r, 0), max(-r,
0), r², y/2 and (y² - 1/2)/2; and is counted once, in a cell by |r| and by y. The moments give the
exact mean absolute error, mean error and R²; the counts give how these vary between samples. At
most one of the first two is not zero, so a patient's squared norm is at most

    1 + r² + r⁴ + (y² + (y² - 1/2)²)/4 ≤ 1 + 1 + 1 + (1 + 1/4)/4,

since t + (t - 1/2)² = t² + 1/4 for t = y² ≤ 1.
"""

from dataclasses import dataclass

import numpy as np

from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray
from protocols.tasks.score_table import Contributions

LABEL_BINS = 4
MOMENTS = 5
TARGET_WEIGHT = 0.5
"""Of the target's moments: they are far larger than the errors', so more noise matters less."""
SQUARED_NORM = 3 + 1.25 * TARGET_WEIGHT**2


@dataclass(frozen=True)
class ErrorTable:
    """The shape of an evaluation of errors: (groups, error bins, label bins), (groups, moments).

    `edges` are the boundaries of the absolute error, 0 and 1 included.
    """

    groups: int
    edges: tuple[float, ...]

    @property
    def block(self) -> tuple[int, int, int]:
        """Shape of the counts."""
        return self.groups, len(self.edges) - 1, LABEL_BINS

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """The products whose sum is the number of coordinates."""
        return self.block, (self.groups, MOMENTS)

    @property
    def cells(self) -> int:
        """Number of cells in which patients are counted."""
        return self.groups * (len(self.edges) - 1) * LABEL_BINS

    @property
    def dimension(self) -> int:
        """Number of coordinates of the table as one vector."""
        return self.cells + self.groups * MOMENTS

    @property
    def squared_norm(self) -> float:
        """The largest squared norm of one patient's contribution."""
        return SQUARED_NORM

    def contributions(
        self, errors: FloatArray, targets: FloatArray, groups: IntArray
    ) -> Contributions:
        """Return what each patient adds. `errors` and `targets` are r and y, both (patients,)."""
        squares = TARGET_WEIGHT * (targets**2 - 0.5)
        moments = [np.maximum(errors, 0), np.maximum(-errors, 0), errors**2]
        values = [np.ones(len(errors)), *moments, TARGET_WEIGHT * targets, squares]
        first = self.cells + MOMENTS * groups
        coordinates = [self._cells(errors, targets, groups), *(first + k for k in range(MOMENTS))]
        return Contributions(np.column_stack(values), np.column_stack(coordinates))

    def _cells(self, errors: FloatArray, targets: FloatArray, groups: IntArray) -> IntArray:
        size = np.searchsorted(self.edges[1:-1], np.abs(errors), side="right")
        label_edges = np.linspace(-1, 1, LABEL_BINS + 1)[1:-1]
        label = np.searchsorted(label_edges, targets, side="right")
        return np.ravel_multi_index((groups, size, label), self.block).astype(np.int64)

    def counts_of(self, vectors: FloatArray) -> FloatArray:
        """Return the counts of opened vectors (..., dimension): (..., groups, errors, labels)."""
        counts = vectors[..., : self.cells]
        return counts.reshape(*counts.shape[:-1], *self.block)

    def moments_of(self, vectors: FloatArray) -> FloatArray:
        """Return sums of max(r, 0), max(-r, 0), r², y and y² - 1/2, (..., groups, 5)."""
        weights = np.array([1.0, 1.0, 1.0, TARGET_WEIGHT, TARGET_WEIGHT])
        moments = vectors[..., self.cells :]
        shaped = moments.reshape(*moments.shape[:-1], self.groups, MOMENTS)
        return np.asarray(shaped / weights, dtype=np.float64)
