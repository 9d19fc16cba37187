"""Fits a released model's calibration to the cohort of its study on this node.

The patients are those that were held out of training, if the study held some out: on patients that
trained the model, its predictions look better than they are, and the slope too near to one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from client.errors import RecordFault
from client.records.cohort import Cohort
from client.tasks.assignment import Assignment
from client.tasks.recalibration import (
    SMALLEST_PROBABILITY,
    Recalibration,
    recalibrate_numbers,
    recalibrate_probabilities,
)
from protocols.numerics.denormals import flushed_denormals
from protocols.tasks import Family, Feature, Predictor, Training
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import COUNTRY, predict_by_country
from protocols.tasks.features import FloatArray

HELD_OUT = "the patients of the study's cohort that were held out of training"
EVERYBODY = "all patients of the study's cohort"
OPTIMISTIC = (
    "the study held no patient out of training, so these patients may have trained the model, and "
    "the slope may be too near to 1"
)
NUMBERED = (
    "the records identify patients by row numbers, so if they have changed since the run, some of "
    "these patients trained the model"
)
PROBABILITY = (
    f"p is the probability that the model predicts, kept between {SMALLEST_PROBABILITY:g} and "
    f"1 - {SMALLEST_PROBABILITY:g}"
)
YES_NO = (
    "calibrated probability = 1 / (1 + exp(-(intercept + slope * ln(p / (1 - p))))), where "
    f"{PROBABILITY}"
)
LEVELS = (
    "calibrated probability of a level = weight of the level / sum of the weights of all levels, "
    "where a weight = exp(intercept of the level + slope * ln(p)), and p is the probability that "
    f"the model predicts for the level, at least {SMALLEST_PROBABILITY:g}"
)


@dataclass(frozen=True)
class LocalFit:
    """A recalibration, what it was fitted on, and how it is applied."""

    target: Feature
    family: Family
    fit: Recalibration
    held_out: bool
    version: str = ""
    numbered: bool = False

    def on_records(self, version: str, *, numbered: bool) -> Self:
        """Return the fit with the version of its records; `numbered`: ids are row numbers."""
        return replace(self, version=version, numbered=numbered)

    @property
    def formula(self) -> str:
        """How a prediction is calibrated, in one sentence."""
        if self.family is Family.LOGISTIC:
            return YES_NO
        if self.family is Family.MULTINOMIAL:
            return LEVELS
        low, high = self.target.limits
        return (
            f"calibrated value = intercept + slope * p, kept between {low:g} and {high:g}, where p "
            "is the value that the model predicts, in the unit of the target"
        )

    def fields(self) -> dict[str, Any]:
        """Return the fields of a calibration file that the fit decides."""
        return {
            "target": self.target.name,
            "intercept": self._by_level(self.fit.intercepts),
            "slope": self.fit.slope,
            "intercept_error": self._by_level(self.fit.intercept_errors),
            "slope_error": self.fit.slope_error,
            "formula": self.formula,
            "fitted_on": HELD_OUT if self.held_out else EVERYBODY,
            "patients": self.fit.patients,
            "records": self.version,
            "notes": self._notes(),
        }

    def _by_level(self, figures: Sequence[float]) -> float | dict[str, float]:
        if self.family is not Family.MULTINOMIAL:
            return figures[0]
        return dict(zip(self.target.levels, figures, strict=True))

    def _notes(self) -> tuple[str, ...]:
        about = () if self.held_out else (OPTIMISTIC,)
        return (*self.fit.notes, *about, *((NUMBERED,) if self.held_out and self.numbered else ()))


def fit_locally(
    assignment: Assignment,
    model: FloatArray,
    baselines: CountryBaselines | None,
    country: str,
) -> LocalFit:
    """Fit a model vector to the patients of an assignment. Raises RecordFault if it cannot be done.

    `baselines` are those of the result; a `country` that is not among them gets the predictions
    that the result states for such a country.
    """
    task = assignment.task
    if not isinstance(task, Training):  # a result of another task has no model
        raise TypeError(task.kind)
    any_held_out = task.evaluation is not None
    cohort = assignment.cohort.where(assignment.held_out) if any_held_out else assignment.cohort
    known = baselines is None or country in baselines.countries
    trained = () if baselines is None or known else baselines.countries
    with np.errstate(all="ignore"), flushed_denormals():
        predicted = _predictions(assignment, cohort, model, trained)
        if not np.isfinite(predicted).all():
            raise _no_prediction()
        fit = _fit(task, cohort, predicted)
    target = task.target_feature(cohort.features)
    return LocalFit(target, task.family, fit, any_held_out)


def _predictions(
    assignment: Assignment, cohort: Cohort, model: FloatArray, trained: Sequence[str]
) -> FloatArray:
    """Return predictions (patients, classes), in batches of bounded memory."""
    size = assignment.trainer.patients_at_once
    starts = range(0, max(1, cohort.patients), size)
    batches = (cohort.between(start, start + size) for start in starts)
    return np.concatenate([_predicted(assignment, batch, model, trained) for batch in batches])


def _predicted(
    assignment: Assignment, cohort: Cohort, model: FloatArray, trained: Sequence[str]
) -> FloatArray:
    task = assignment.task
    if trained and isinstance(task, Predictor):
        columns = {**cohort.columns, COUNTRY: np.full(cohort.patients, np.nan)}
        return predict_by_country(task, cohort.features, model, columns, trained)
    if not isinstance(task, Training):
        raise TypeError(task.kind)
    return task.predicted(cohort.features, assignment.trainer.outputs(cohort, model))


def _fit(task: Training, cohort: Cohort, predicted: FloatArray) -> Recalibration:
    target = task.target_feature(cohort.features)
    column = cohort.columns[target.name]
    if task.family is not Family.LINEAR:
        return recalibrate_probabilities(predicted, column.astype(np.int64))
    actual = target.unscaled(target.scaled(column))  # within the public bounds, as in training
    return recalibrate_numbers(target.unscaled(predicted[:, 0]), actual)


def _no_prediction() -> RecordFault:
    return RecordFault(
        "The model cannot be calibrated on these records",
        why="it predicts no finite number for some of the patients",
        fix="ask the coordinator about the model; nothing was written",
    )
