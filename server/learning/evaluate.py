"""Evaluates a model from the opened evaluation table: overall and for each subgroup.

Every figure has an interval that includes noise and sampling. A group, or a label in a group, with
fewer patients than the study's smallest cell is suppressed: its figures are None, never zero. A
figure is too noisy if no interval would be right, and too coarse if the table's bins do not give
it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.error_table import ErrorTable
from protocols.tasks.evaluation import EVERYBODY, Evaluation
from protocols.tasks.features import Feature, FloatArray, by_name
from protocols.tasks.score_table import ScoreTable
from protocols.tasks.training import Family, Training
from server.learning import error_figures, score_figures
from server.learning.auc import auc, too_coarse
from server.learning.error_figures import ErrorSums
from server.learning.estimates import (
    NORMAL_QUANTILE,
    Ends,
    Estimate,
    Figure,
    Unreleased,
    cell_noise_std,
    figure_json,
    figures_json,
)
from server.learning.score_figures import ScoreSums

ACCURACY, AUC = "accuracy", "auc"
ScoreFigure = Callable[..., Ends]
ErrorFigure = Callable[[ErrorSums], Ends]
SCORE_PANELS: Mapping[Family, Mapping[str, ScoreFigure]] = {
    Family.LOGISTIC: {
        ACCURACY: score_figures.accuracy,
        AUC: auc,
        "calibration_in_the_large": score_figures.calibration_in_the_large,
        "expected_calibration_error": score_figures.expected_calibration_error,
    },
    Family.MULTINOMIAL: {
        AUC: auc,
        "expected_calibration_error": score_figures.expected_calibration_error,
    },
}
"""For several levels, figures are means over the levels, each against the rest; except accuracy.
Observed minus expected, over all levels, is always zero, so it is no figure."""
ERROR_PANEL: Mapping[str, ErrorFigure] = {
    "mean_absolute_error": error_figures.mean_absolute_error,
    "mean_residual": error_figures.mean_residual,
    "variance_explained": error_figures.variance_explained,
}


@dataclass(frozen=True)
class GroupEvaluation:
    """The figures of one group; `patients` is its number of held-out patients."""

    group: str
    patients: Estimate | None
    figures: Mapping[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON."""
        patients = figure_json(self.patients)
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
) -> EvaluationReport:
    """Return the report of an opened lattice sum over `countries` contributions."""
    evaluation = task.evaluation or Evaluation()
    reader = _Reader(
        family=task.family,
        table=task.score_table(features),
        vector=opened / mechanism.scale,
        smallest=evaluation.smallest_cell,
        noise=cell_noise_std(mechanism, countries),
    )
    overall = reader.group(EVERYBODY, None)
    if evaluation.subgroup is None:
        return EvaluationReport(overall, ())
    names = evaluation.groups(by_name(features))
    return EvaluationReport(
        overall, tuple(reader.group(name, index) for index, name in enumerate(names))
    )


def score_sums(
    table: ScoreTable, vectors: FloatArray, noise: float, group: int | None = None
) -> tuple[ScoreSums, ...]:
    """Return the sums of each class, of one group or of all, from vectors (..., dimension).

    `noise` is the standard deviation of one cell, in patients.
    """
    counts = _of_group(table.counts_of(vectors), group, axis=-3)
    places = squares = None
    if table.placed:
        places = _of_group(table.places_of(vectors), group, axis=-3)
        squares = _of_group(table.squares_of(vectors), group, axis=-2)
    return tuple(
        ScoreSums(
            edges=np.asarray(table.edges),
            counts=counts[..., each, :, :],
            noise=_merged(noise, table.groups, group),
            places=None if places is None else places[..., each, :, :],
            squares=None if squares is None else squares[..., each, :],
        )
        for each in range(table.classes)
    )


def error_sums(
    table: ErrorTable, vectors: FloatArray, noise: float, group: int | None = None
) -> ErrorSums:
    """Return the sums of one group or of all, from vectors (..., dimension)."""
    return ErrorSums(
        edges=np.asarray(table.edges),
        counts=_of_group(table.counts_of(vectors), group, axis=-3),
        moments=_of_group(table.moments_of(vectors), group, axis=-2),
        noise=_merged(noise, table.groups, group),
    )


def share_right(
    table: ScoreTable, vectors: FloatArray, noise: float, group: int | None = None
) -> dict[str, Ends]:
    """Return the share of patients whose top class is right, if there are several classes."""
    if table.classes == 1:
        return {}
    right = _of_group(table.right_by_group(vectors), group, axis=-2)
    noise = _merged(noise, table.groups, group)
    return {ACCURACY: score_figures.share(right[..., 1], right.sum(axis=-1), noise, cells=1)}


def _of_group(cells: FloatArray, group: int | None, *, axis: int) -> FloatArray:
    chosen = cells.sum(axis=axis) if group is None else cells.take(group, axis=axis)
    return np.asarray(chosen, dtype=np.float64)


def _merged(noise: float, groups: int, group: int | None) -> float:
    return noise * float(np.sqrt(groups)) if group is None else noise


@dataclass(frozen=True)
class _Reader:
    family: Family
    table: ScoreTable | ErrorTable
    vector: FloatArray
    smallest: int
    noise: float

    def group(self, name: str, group: int | None) -> GroupEvaluation:
        """Return the figures of one group, or of everybody."""
        if isinstance(self.table, ErrorTable):
            errors = error_sums(self.table, self.vector, self.noise, group)
            found = {name: figure(errors).figure() for name, figure in ERROR_PANEL.items()}
            return self._unless_few(name, errors, found)
        classes = score_sums(self.table, self.vector, self.noise, group)
        right = share_right(self.table, self.vector, self.noise, group)
        scored = {name: ends.figure() for name, ends in right.items()}
        return self._unless_few(name, classes[0], self._scored(classes) | scored)

    def _scored(self, classes: tuple[ScoreSums, ...]) -> dict[str, Figure]:
        if self.family is Family.LINEAR:
            return dict.fromkeys(ERROR_PANEL, Unreleased.TOO_COARSE)
        panel = SCORE_PANELS[self.family].items()
        return {name: self._figure(name, figure, classes) for name, figure in panel}

    def _figure(self, name: str, figure: ScoreFigure, classes: tuple[ScoreSums, ...]) -> Figure:
        if name == AUC and any((each.labels < self.smallest).any() for each in classes):
            return None
        if classes[0].places is None and name != ACCURACY:
            return Unreleased.TOO_COARSE
        found = figure(*classes).figure()
        unreleased = name == AUC and found is Unreleased.TOO_NOISY
        if unreleased and too_coarse(*classes):
            return Unreleased.TOO_COARSE
        return found

    def _unless_few(
        self, name: str, sums: ScoreSums | ErrorSums, figures: Mapping[str, Figure]
    ) -> GroupEvaluation:
        total, reach = float(sums.patients), NORMAL_QUANTILE * sums.patients_noise
        if total < self.smallest:
            return GroupEvaluation(name, None, dict.fromkeys(figures))
        return GroupEvaluation(
            name, Estimate(total, max(0.0, total - reach), total + reach), figures
        )
