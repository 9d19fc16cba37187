"""Evaluation as a table: held-out patients counted by score, label and subgroup.

Each held-out patient is counted in one cell for each scored class, so a patient's whole
contribution is an integer vector of public norm. AUC, accuracy and calibration are computed from
the noisy sum after it is opened.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.tasks.features import Feature, FloatArray
from protocols.tasks.layout import Grouping, IntArray

EVERYBODY = "everybody"
LINEAR_LABEL_BINS = 10
"""Bins of the target itself, from which the explained variance is computed."""


class Evaluation(BaseModel):
    """How a trained model is evaluated on held-out patients.

    `held_out` is the share of patients not used in training; the node chooses them by a keyed hash.
    `share` is the part of the study's privacy budget that evaluation may use.
    Groups of fewer than `smallest_cell` patients (by the noisy count) are suppressed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    held_out: Annotated[float, Field(ge=0.05, le=0.5)] = 0.3
    bins: Annotated[int, Field(ge=4, le=100)] = 10
    subgroup: Grouping | None = None
    share: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    smallest_cell: Annotated[int, Field(ge=5, le=1_000)] = 10

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.bins % 2:
            raise ValueError("evaluation: bins must be even, so that 0.5 is a boundary")
        return self

    def group_count(self, features: Mapping[str, Feature]) -> int:
        """Return the number of subgroups; one if none is declared."""
        subgroup = self.subgroup
        return 1 if subgroup is None else subgroup.size(features[subgroup.feature])

    def groups(self, features: Mapping[str, Feature]) -> tuple[str, ...]:
        """Return the names of the subgroups; one group of everybody if none is declared."""
        if self.subgroup is None:
            return (EVERYBODY,)
        return self.subgroup.labels(features[self.subgroup.feature])


@dataclass(frozen=True)
class ScoreTable:
    """The shape of an evaluation table: score cells (classes, groups, score bins, label bins).

    `classes` is 1 for a yes/no or a numeric target. With more classes, cells (groups, 2) follow:
    each patient is counted in one score cell for each class, and once more as wrong or right,
    depending on whether the class with the highest score is the patient's.
    """

    classes: int
    groups: int
    bins: int
    label_bins: int

    @property
    def block(self) -> tuple[int, int, int, int]:
        """Shape of the score cells."""
        return self.classes, self.groups, self.bins, self.label_bins

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """The products whose sum is the number of coordinates."""
        return self.block, *(((2, self.groups),) if self.classes > 1 else ())

    @property
    def score_cells(self) -> int:
        """Number of score cells."""
        return math.prod(self.block)

    @property
    def dimension(self) -> int:
        """Number of coordinates of the table as one vector."""
        return sum(map(math.prod, self.terms))

    @property
    def ones(self) -> int:
        """Number of cells in which one patient is counted: the squared norm of a contribution."""
        return self.classes + 1 if self.classes > 1 else 1

    def contributions(self, scores: FloatArray, labels: IntArray, groups: IntArray) -> FloatArray:
        """Return 0/1 vectors (patients, dimension).

        `scores` is (patients, classes) in [0, 1]; `labels` (patients, classes) in label bins.
        """
        patients = len(scores)
        table = np.zeros((patients, self.dimension))
        every = np.arange(patients)
        for k in range(self.classes):
            cell = (k, groups, self.score_bins(scores[:, k]), labels[:, k])
            table[every, np.ravel_multi_index(cell, self.block)] = 1.0
        if self.classes > 1:
            right = labels[every, scores.argmax(axis=1)]
            table[every, self.score_cells + 2 * groups + right] = 1.0
        return table

    def score_bins(self, scores: FloatArray) -> IntArray:
        """Return the bin of each score; a score of 1 belongs to the last bin."""
        return np.clip((scores * self.bins).astype(np.int64), 0, self.bins - 1)

    def scores_by_cell(self, vector: FloatArray) -> FloatArray:
        """Return the score cells of an opened vector, shaped (classes, groups, bins, labels)."""
        return vector[: self.score_cells].reshape(self.block)

    def right_by_group(self, vector: FloatArray) -> FloatArray:
        """Return counts of wrong and right highest scores, (groups, 2); else (groups, 0)."""
        return vector[self.score_cells :].reshape(self.groups, 2 if self.classes > 1 else 0)
