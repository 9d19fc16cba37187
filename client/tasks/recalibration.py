"""Recalibrates a released model on a country's own patients: an intercept, and a slope if possible.

For a yes/no target this is logistic recalibration (Cox 1958): the log odds of the calibrated
prediction are `intercept + slope · log odds of the prediction`. For levels, each level has its
intercept, and one slope is common to all. For a number, it is a straight line by least squares.

A slope needs more patients than an intercept (`ENOUGH`), and for fewer than `FEWEST` nothing is
fitted. All of it stays on the node: nothing here bounds what a patient adds, and there is no noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.errors import RecordFault
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray
from protocols.tasks.training import softmax

FEWEST = 5
"""Patients with each outcome, or with a number, that an intercept needs."""
ENOUGH = 20
"""Patients with each outcome, or with a number, that a slope needs beside it."""
SMALLEST_PROBABILITY = 1e-9
"""Predicted probabilities are kept this far from 0, and from 1 for a yes/no target."""
LARGEST_ERROR = 15.0
"""A slope whose error is larger, in log odds for one standard deviation of the predictions, has no
finite estimate: the predictions separate the outcomes."""
MOST_STEPS, MOST_HALVINGS, LARGEST_STEP = 100, 40, 10.0
TOLERANCE = 1e-10
"""Of the gradient, as a part of the number of patients."""
FLAT = 1e-9
"""Predictions with a smaller standard deviation do not differ between patients."""

FEW = f"there are fewer than {ENOUGH} patients with an outcome, so only intercepts were fitted"
FLAT_NOTE = "the predictions do not differ between patients, so only intercepts were fitted"
SEPARATED = (
    "the predictions separate the outcomes, so that no finite slope exists; only intercepts were "
    "fitted"
)
REVERSED = (
    "the slope is not above zero: the model does not rank the patients of this country, so do not "
    "use it here"
)


@dataclass(frozen=True)
class Recalibration:
    """A fitted recalibration: its intercepts, its slope, and what its reader must know.

    There is one intercept for a yes/no target or a number, else one for each level, the first of
    which is zero. `slope` is 1, with an error of zero, if it was not fitted. Errors are standard
    errors, from the observed information or of least squares.
    """

    intercepts: tuple[float, ...]
    intercept_errors: tuple[float, ...]
    slope: float
    slope_error: float
    patients: int
    notes: tuple[str, ...] = ()


def recalibrate_probabilities(predicted: FloatArray, outcomes: IntArray) -> Recalibration:
    """Fit predicted probabilities (patients, classes) to outcomes, the index of each one's class.

    One column is the probability that the outcome is true. Raises RecordFault if fewer than five
    patients have one of the outcomes: then no intercept is known.
    """
    scores = _scores(predicted)
    fewest = int(np.bincount(outcomes, minlength=scores.shape[1]).min())
    if fewest < FEWEST:
        raise _too_few("with one of the outcomes")
    spread = _spread(scores)
    note = FEW if fewest < ENOUGH else FLAT_NOTE if spread < FLAT else ""
    fit = None if note else _fitted(scores / spread, outcomes, with_slope=True)
    if fit is None:
        fit, spread, note = _fitted(scores, outcomes, with_slope=False), 1.0, note or SEPARATED
    if fit is None:
        raise _no_fit()
    skipped = 1 if predicted.shape[1] == 1 else 0  # the zero of the class that is no column
    slope, slope_error = fit.slope / spread, fit.slope_error / spread
    return Recalibration(
        fit.intercepts[skipped:],
        fit.errors[skipped:],
        slope,
        slope_error,
        len(outcomes),
        _notes(note, slope),
    )


def recalibrate_numbers(predicted: FloatArray, actual: FloatArray) -> Recalibration:
    """Fit predicted numbers to the actual ones (both (patients,)), by least squares.

    Raises RecordFault if there are fewer than five patients.
    """
    patients, spread = len(actual), float(np.std(predicted)) if len(actual) else 0.0
    if patients < FEWEST:
        raise _too_few("")
    note = FEW.replace(" with an outcome", "") if patients < ENOUGH else ""
    if not note and spread < FLAT * max(1.0, float(np.abs(predicted).max())):
        note = FLAT_NOTE
    slope = 1.0
    centre = float(predicted.mean())
    if not note:
        slope = float(np.mean((predicted - centre) * (actual - actual.mean())) / spread**2)
    intercept = float(actual.mean()) - slope * centre
    unexplained = float(np.sum((actual - intercept - slope * predicted) ** 2))
    error = np.sqrt(unexplained / (patients - (1 if note else 2)) / patients)
    slope_error = 0.0 if note else float(error / spread)
    intercept_error = float(np.hypot(error, slope_error * centre))
    return Recalibration(
        (intercept,), (intercept_error,), slope, slope_error, patients, _notes(note, slope)
    )


@dataclass(frozen=True)
class _Fit:
    intercepts: tuple[float, ...]
    errors: tuple[float, ...]
    slope: float
    slope_error: float


def _fitted(scores: FloatArray, outcomes: IntArray, *, with_slope: bool) -> _Fit | None:
    """Return the maximum of the likelihood; None if it has none, or if it was not reached.

    The log likelihood is concave in the intercepts of all classes but the first, and in the slope.
    Newton's steps are shortened until it rises, so the maximum is reached if there is one.
    """
    model = _Likelihood(scores, outcomes, with_slope=with_slope)
    at = model.start()
    value = model.value(at)
    for _ in range(MOST_STEPS):
        gradient, information = model.derivatives(at)
        if np.abs(gradient).max() <= TOLERANCE * len(outcomes):
            return _fit_at(at, information, with_slope=with_slope)
        step = _newton_step(gradient, information)
        shorter = _rising(model, at, value, step)
        if shorter is None:  # the value rises no more: this is the maximum, as far as it shows
            return _fit_at(at, information, with_slope=with_slope)
        at, value = shorter
    return None


def _newton_step(gradient: FloatArray, information: FloatArray) -> FloatArray:
    ridge = 1e-12 * (1 + np.trace(information))
    step = np.linalg.solve(information + ridge * np.eye(len(gradient)), gradient)
    return np.asarray(step * min(1.0, LARGEST_STEP / max(np.abs(step).max(), 1e-300)))


def _rising(
    model: "_Likelihood", at: FloatArray, value: float, step: FloatArray
) -> tuple[FloatArray, float] | None:
    for _ in range(MOST_HALVINGS):
        reached = at + step
        if (new := model.value(reached)) > value:
            return reached, new
        step = step / 2
    return None


def _fit_at(at: FloatArray, information: FloatArray, *, with_slope: bool) -> _Fit | None:
    try:
        variances = np.diag(np.linalg.inv(information))
    except np.linalg.LinAlgError:
        return None
    if not np.all(np.isfinite(at)) or not np.all(variances > 0):
        return None
    errors = np.sqrt(variances)
    if with_slope and errors[-1] > LARGEST_ERROR:
        return None
    free = len(at) - int(with_slope)
    slope, slope_error = (float(at[-1]), float(errors[-1])) if with_slope else (1.0, 0.0)
    return _Fit(
        (0.0, *map(float, at[:free])), (0.0, *map(float, errors[:free])), slope, slope_error
    )


class _Likelihood:
    """The log likelihood of the outcomes; parameters are intercepts, and the slope at the end."""

    def __init__(self, scores: FloatArray, outcomes: IntArray, *, with_slope: bool) -> None:
        self._scores, self._with_slope = scores, with_slope
        self._hits = np.eye(scores.shape[1])[outcomes]

    def start(self) -> FloatArray:
        """Return intercepts of zero, and a slope that changes nothing on its scale."""
        return np.array([0.0] * (self._scores.shape[1] - 1) + [1.0] * self._with_slope)

    def value(self, at: FloatArray) -> float:
        """Return the log likelihood."""
        outputs = self._outputs(at)
        top = outputs.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(outputs - top).sum(axis=1))
        return float(np.sum(np.sum(self._hits * outputs, axis=1) - total))

    def derivatives(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the gradient, and the information (minus the matrix of second derivatives)."""
        chances = softmax(self._outputs(at))
        missed = self._hits - chances
        free = chances[:, 1:]
        gradient, information = missed[:, 1:].sum(axis=0), np.diag(free.sum(axis=0)) - free.T @ free
        if not self._with_slope:
            return gradient, information
        mean = np.sum(chances * self._scores, axis=1, keepdims=True)
        cross = np.sum(free * (self._scores[:, 1:] - mean), axis=0)
        curve = np.sum(chances * (self._scores - mean) ** 2)
        gradient = np.append(gradient, np.sum(missed * self._scores))
        return gradient, np.block([[information, cross[:, None]], [cross[None, :], curve]])

    def _outputs(self, at: FloatArray) -> FloatArray:
        intercepts = np.concatenate([[0.0], at[: self._scores.shape[1] - 1]])
        slope = at[-1] if self._with_slope else 1.0
        return np.asarray(intercepts + slope * self._scores, dtype=np.float64)


def _scores(predicted: FloatArray) -> FloatArray:
    """Return scores (patients, classes) whose softmax are the predicted probabilities."""
    if predicted.shape[1] > 1:
        return np.log(np.maximum(predicted, SMALLEST_PROBABILITY))
    p = np.clip(predicted, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.hstack([np.zeros_like(p), np.log(p) - np.log1p(-p)])


def _spread(scores: FloatArray) -> float:
    """Return the standard deviation between patients of the differences between classes."""
    differences = scores[:, 1:] - scores[:, :1]
    return float(np.sqrt(np.mean(np.var(differences, axis=0))))


def _notes(note: str, slope: float) -> tuple[str, ...]:
    notes: Sequence[str] = (note, "" if slope > 0 else REVERSED)
    return tuple(sentence for sentence in notes if sentence)


def _too_few(which: str) -> RecordFault:
    return RecordFault(
        "There are too few patients to calibrate the model on",
        why=f"an intercept needs {FEWEST} patients {which}".rstrip(),
        fix="calibrate it when there are more, or use the model as it is",
    )


def _no_fit() -> RecordFault:
    return RecordFault(
        "No calibration was found",
        why="the likelihood of the outcomes has no maximum that the steps reached",
        fix="use the model as it is",
    )
