"""Evaluation as a table: held-out patients counted by score, label and subgroup.

Each held-out patient is counted in one cell for each scored class. With places, the patient also
adds the place u of the score in its bin, from -1 to 1, and how far it is from the middle: u and
u² - 1/2, both times `PLACE_WEIGHT`. So the exact sum of the scores in a bin is known, and how they
are spread over it, and not only that they are somewhere in it. Since t + (t - 1/2)² = t² + 1/4 for
t = u² ≤ 1, a patient's squared norm is at most classes·(1 + 5/4·PLACE_WEIGHT²), and one more if
there are several classes.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray

PLACE_WEIGHT = 0.25
"""Of a score's place in its bin. It adds 4 % to the noise of the counts; the sum of the places has
four times the noise of a count, and half a bin's width of that is small beside the counts."""


class Contributions(NamedTuple):
    """The coordinates of patients that are not zero: their values and numbers, (patients, k).

    The coordinates in one row are distinct, so a row's norm is that of the patient's whole vector.
    """

    values: FloatArray
    coordinates: IntArray


@dataclass(frozen=True)
class ScoreTable:
    """The shape of an evaluation table: score cells (classes, groups, score bins, label bins).

    `edges` are the boundaries of the score bins, 0 and 1 included. `classes` is 1 for a yes/no or a
    numeric target. With `placed`, a second block of the shape of the score cells holds the places
    of the scores in their bins, and a third one, (classes, groups, score bins), their squares. With
    more classes, cells (groups, 2) follow: each patient is counted in one score cell for each
    class, and once more as wrong or right, depending on whether the class with the highest score is
    the patient's.
    """

    classes: int
    groups: int
    edges: tuple[float, ...]
    label_bins: int
    placed: bool

    @property
    def bins(self) -> int:
        """Number of score bins."""
        return len(self.edges) - 1

    @property
    def block(self) -> tuple[int, int, int, int]:
        """Shape of the score cells, and of the places."""
        return self.classes, self.groups, self.bins, self.label_bins

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """The products whose sum is the number of coordinates."""
        placed = (self.block, self.block[:3]) if self.placed else ()
        right = ((self.groups, 2),) if self.classes > 1 else ()
        return self.block, *placed, *right

    @property
    def dimension(self) -> int:
        """Number of coordinates of the table as one vector."""
        return sum(map(math.prod, self.terms))

    @property
    def squared_norm(self) -> float:
        """The largest squared norm of one patient's contribution."""
        each = 1 + 1.25 * PLACE_WEIGHT**2 if self.placed else 1
        return self.classes * each + (self.classes > 1)

    def contributions(
        self, scores: FloatArray, labels: IntArray, groups: IntArray
    ) -> Contributions:
        """Return what each patient adds: counts of one, then places, then right or wrong.

        `scores` is (patients, classes) in [0, 1]; `labels` (patients, classes) in label bins.
        """
        bins = self.score_bins(scores)
        index = np.broadcast_arrays(np.arange(self.classes), groups[:, None], bins, labels)
        cells = np.ravel_multi_index(index, self.block)
        values, coordinates = [np.ones(cells.shape)], [cells]
        if self.placed:
            places = self.places_in_bins(scores, bins)
            values += [PLACE_WEIGHT * places, PLACE_WEIGHT * (places**2 - 0.5)]
            in_bins = np.ravel_multi_index(index[:3], self.block[:3])
            coordinates += [self._start(1) + cells, self._start(2) + in_bins]
        if self.classes > 1:
            every = np.arange(len(scores))
            right = labels[every, scores.argmax(axis=1)]
            values.append(np.ones((len(scores), 1)))
            coordinates.append((self._start(-1) + 2 * groups + right)[:, None])
        return Contributions(np.hstack(values), np.hstack(coordinates))

    def _start(self, block: int) -> int:
        """Return the first coordinate of a block."""
        return sum(map(math.prod, self.terms[:block]))

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
        return middles_of(np.asarray(self.edges))

    @cached_property
    def half_widths(self) -> FloatArray:
        """Half the width of each score bin."""
        return half_widths_of(np.asarray(self.edges))

    def counts_of(self, vectors: FloatArray) -> FloatArray:
        """Return counts (..., classes, groups, bins, labels) of opened vectors (..., dimension)."""
        return self._part(vectors, 0)

    def places_of(self, vectors: FloatArray) -> FloatArray:
        """Return the sums of the scores' places in their bins, shaped as the counts."""
        return self._part(vectors, 1) / PLACE_WEIGHT

    def squares_of(self, vectors: FloatArray) -> FloatArray:
        """Return the sums of squared places minus 1/2, (..., classes, groups, bins)."""
        return self._part(vectors, 2) / PLACE_WEIGHT

    def right_by_group(self, vectors: FloatArray) -> FloatArray:
        """Return counts of wrong and right top classes, (..., groups, 2)."""
        return self._part(vectors, -1)

    def _part(self, vectors: FloatArray, block: int) -> FloatArray:
        shape, start = self.terms[block], self._start(block)
        part = vectors[..., start : start + math.prod(shape)]
        return part.reshape(*part.shape[:-1], *shape)


def middles_of(edges: FloatArray) -> FloatArray:
    """Return the middle of each bin between these edges."""
    return np.asarray((edges[1:] + edges[:-1]) / 2, dtype=np.float64)


def half_widths_of(edges: FloatArray) -> FloatArray:
    """Return half the width of each bin between these edges."""
    return np.asarray(np.diff(edges) / 2, dtype=np.float64)
