"""Evaluates a model from the opened evaluation table: overall and for each subgroup.

Every figure has an interval that includes noise and sampling. A group, or a label in a group, with
fewer patients than the study's smallest cell is suppressed: its figures are None, never zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.evaluation import EVERYBODY, Evaluation
from protocols.tasks.features import Feature, FloatArray, by_name
from protocols.tasks.training import Family, Training
from server.learning import figures
from server.learning.estimates import (
    NORMAL_QUANTILE,
    Estimate,
    Figure,
    Figures,
    cell_noise_std,
    estimate,
    figures_json,
    simulate_tables,
)

UNIT = (0.0, 1.0)
SIGNED = (-1.0, 1.0)
UP_TO_ONE = (-np.inf, 1.0)
Panel = Mapping[str, tuple[Figure, tuple[float, float]]]
Computed = tuple[FloatArray, FloatArray, FloatArray]
"""A figure of the observed table, of the fitted one, and of the simulated ones."""

TWO_LABELS: Panel = {
    "auc": (figures.auc, UNIT),
    "calibration_in_the_large": (figures.calibration_in_the_large, SIGNED),
    "expected_calibration_error": (figures.expected_calibration_error, UNIT),
}
YES_NO: Panel = {"accuracy": (figures.accuracy, UNIT), **TWO_LABELS}
NUMERIC: Panel = {
    "mean_absolute_error": (figures.mean_absolute_error, UNIT),
    "mean_residual": (figures.mean_residual, SIGNED),
    "variance_explained": (figures.variance_explained, UP_TO_ONE),
}
RIGHT: Panel = {"accuracy": (figures.share_right, UNIT)}
"""For several levels, figures are means over the levels, each against the rest; except accuracy."""
PANELS = {Family.LOGISTIC: YES_NO, Family.MULTINOMIAL: TWO_LABELS, Family.LINEAR: NUMERIC}


@dataclass(frozen=True)
class GroupEvaluation:
    """The figures of one group; `patients` is its number of held-out patients."""

    group: str
    patients: Estimate | None
    figures: Figures

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON."""
        patients = self.patients.to_json() if self.patients else None
        return {"group": self.group, "patients": patients, **figures_json(self.figures)}


@dataclass(frozen=True)
class EvaluationReport:
    """The figures of all patients and of each subgroup."""

    everybody: GroupEvaluation
    subgroups: tuple[GroupEvaluation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        groups = [group.to_json() for group in self.subgroups]
        return {"everybody": self.everybody.to_json(), "subgroups": groups}


def evaluate(
    task: Training,
    features: Sequence[Feature],
    mechanism: Mechanism,
    opened: NDArray[np.int64],
    *,
    countries: int,
    generator: np.random.Generator,
) -> EvaluationReport:
    """Return the report of an opened lattice sum over `countries` contributions.

    `generator` draws the simulations for the intervals; it does not affect privacy.
    """
    evaluation = task.evaluation or Evaluation()
    reader = _Reader(
        panel=PANELS[task.family],
        smallest=evaluation.smallest_cell,
        cell_noise=cell_noise_std(mechanism, countries),
        generator=generator,
    )
    table = task.score_table(features)
    cells = opened / mechanism.scale
    scores, right = table.scores_by_cell(cells), table.right_by_group(cells)
    names = evaluation.groups(by_name(features))
    overall = reader.group(EVERYBODY, scores.sum(axis=1), right.sum(axis=0), len(names))
    if evaluation.subgroup is None:
        return EvaluationReport(overall, ())
    parts = [reader.group(name, scores[:, i], right[i], 1) for i, name in enumerate(names)]
    return EvaluationReport(overall, tuple(parts))


@dataclass(frozen=True)
class _Reader:
    panel: Panel
    smallest: int
    cell_noise: float
    generator: np.random.Generator

    def group(
        self, name: str, scores: FloatArray, right: FloatArray, merged: int
    ) -> GroupEvaluation:
        """Return the figures of one group; each of its cells is the sum of `merged` cells.

        `scores` is (classes, bins, labels); `right` counts wrong and right, or is empty.
        """
        noise = self.cell_noise * math.sqrt(merged)
        patients = self._patients(scores[0], noise)
        if patients is None:
            return GroupEvaluation(name, None, dict.fromkeys((*self.panel, *_extra(right))))
        scored = self._figures(self.panel, list(scores), noise)
        extra = self._figures(_extra(right), [right], noise)
        return GroupEvaluation(name, patients, scored | extra)

    def _patients(self, table: FloatArray, noise: float) -> Estimate | None:
        total, reach = float(table.sum()), NORMAL_QUANTILE * noise * math.sqrt(table.size)
        if total < self.smallest:
            return None
        return Estimate(total, max(0.0, total - reach), total + reach)

    def _figures(
        self, panel: Panel, tables: Sequence[FloatArray], noise: float
    ) -> dict[str, Estimate | None]:
        if not panel:
            return {}
        computed = [self._computed(panel, table, noise) for table in tables]
        return {
            name: None
            if figure is figures.auc and self._thin(tables)
            else estimate([each[name] for each in computed], limits)
            for name, (figure, limits) in panel.items()
        }

    def _computed(self, panel: Panel, table: FloatArray, noise: float) -> dict[str, Computed]:
        """Return the figures of one table; its simulated tables are dropped before the next."""
        fitted, drawn = simulate_tables(table, noise, self.generator)
        return {
            name: (figure(table), figure(fitted), figure(drawn))
            for name, (figure, _) in panel.items()
        }

    def _thin(self, tables: Sequence[FloatArray]) -> bool:
        return any((table.sum(axis=0) < self.smallest).any() for table in tables)


def _extra(right: FloatArray) -> Panel:
    return RIGHT if right.size else {}
