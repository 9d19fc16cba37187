"""Evaluation as a table: held-out patients counted by score, label and subgroup.

Each held-out patient is counted in one cell for each scored class. With offsets, the patient also
adds the place of the score in its bin, `OFFSET_WEIGHT`·u with u from -1 to 1. So the exact sum of
the scores in a bin is known, and not only that they are somewhere in it. A patient's whole
contribution has a public norm: √(classes·(1 + OFFSET_WEIGHT²)), and one more count if there are
several classes.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray

OFFSET_WEIGHT = 0.25
"""Of a score's place in its bin. It adds 3 % to the noise of the counts; the sum of the places has
four times the noise of a count, and half a bin's width of that is small beside the counts."""


class Contributions(NamedTuple):
    """The coordinates of patients that are not zero: values and their places, (patients, k).

    The places in one row are distinct, so a row's norm is that of the patient's whole vector.
    """

    values: FloatArray
    places: IntArray


@dataclass(frozen=True)
class ScoreTable:
    """The shape of an evaluation table: score cells (classes, groups, score bins, label bins).

    `edges` are the boundaries of the score bins, 0 and 1 included. `classes` is 1 for a yes/no or a
    numeric target. If the table has `offsets`, a second block of the shape of the score cells holds
    them. With more classes, cells (groups, 2) follow: each patient is counted in one score cell for
    each class, and once more as wrong or right, depending on whether the class with the highest
    score is the patient's.
    """

    classes: int
    groups: int
    edges: tuple[float, ...]
    label_bins: int
    offsets: bool

    @property
    def bins(self) -> int:
        """Number of score bins."""
        return len(self.edges) - 1

    @property
    def block(self) -> tuple[int, int, int, int]:
        """Shape of the score cells, and of the offsets."""
        return self.classes, self.groups, self.bins, self.label_bins

    @property
    def blocks(self) -> int:
        """Number of blocks of this shape: counts, and offsets if there are any."""
        return 1 + self.offsets

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """The products whose sum is the number of coordinates."""
        right = ((2, self.groups),) if self.classes > 1 else ()
        return (self.blocks, *self.block), *right

    @property
    def score_cells(self) -> int:
        """Number of score cells."""
        return math.prod(self.block)

    @property
    def dimension(self) -> int:
        """Number of coordinates of the table as one vector."""
        return sum(map(math.prod, self.terms))

    @property
    def squared_norm(self) -> float:
        """The largest squared norm of one patient's contribution."""
        each = 1 + OFFSET_WEIGHT**2 if self.offsets else 1
        return self.classes * each + (self.classes > 1)

    def contributions(
        self, scores: FloatArray, labels: IntArray, groups: IntArray
    ) -> Contributions:
        """Return what each patient adds: counts of one, then offsets, then right or wrong.

        `scores` is (patients, classes) in [0, 1]; `labels` (patients, classes) in label bins.
        """
        bins = self.score_bins(scores)
        index = np.arange(self.classes), groups[:, None], bins, labels
        cells = np.ravel_multi_index(np.broadcast_arrays(*index), self.block)
        values, places = [np.ones(cells.shape)], [cells]
        if self.offsets:
            values.append(OFFSET_WEIGHT * self.places_in_bins(scores, bins))
            places.append(self.score_cells + cells)
        if self.classes > 1:
            every = np.arange(len(scores))
            right = labels[every, scores.argmax(axis=1)]
            values.append(np.ones((len(scores), 1)))
            places.append((self.blocks * self.score_cells + 2 * groups + right)[:, None])
        return Contributions(np.hstack(values), np.hstack(places))

    def score_bins(self, scores: FloatArray) -> IntArray:
        """Return the bin of each score; an edge belongs to the bin above it, 1 to the last bin."""
        return np.searchsorted(self.edges[1:-1], scores, side="right").astype(np.int64)

    def places_in_bins(self, scores: FloatArray, bins: IntArray) -> FloatArray:
        """Return each score's place in its bin: -1 at the lower edge, 1 at the upper one."""
        places = (scores - self.middles[bins]) / self.half_widths[bins]
        return np.asarray(np.clip(places, -1.0, 1.0), dtype=np.float64)

    @cached_property
    def middles(self) -> FloatArray:
        """The middle of each score bin."""
        edges = np.asarray(self.edges)
        return np.asarray((edges[1:] + edges[:-1]) / 2, dtype=np.float64)

    @cached_property
    def half_widths(self) -> FloatArray:
        """Half the width of each score bin."""
        return np.asarray(np.diff(self.edges) / 2, dtype=np.float64)

    def counts_of(self, vector: FloatArray) -> FloatArray:
        """Return the counts of an opened vector, shaped (classes, groups, bins, labels)."""
        return vector[: self.score_cells].reshape(self.block)

    def offsets_of(self, vector: FloatArray) -> FloatArray:
        """Return the sums of the scores' places in their bins, shaped as the counts."""
        part = vector[self.score_cells : self.blocks * self.score_cells]
        return np.asarray(part.reshape(self.block) / OFFSET_WEIGHT, dtype=np.float64)

    def right_by_group(self, vector: FloatArray) -> FloatArray:
        """Return counts of wrong and right highest scores, (groups, 2); else (groups, 0)."""
        right = vector[self.blocks * self.score_cells :]
        return right.reshape(self.groups, 2 if self.classes > 1 else 0)
