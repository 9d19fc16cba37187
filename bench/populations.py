"""Populations whose exact figures are known, for `make bench-figures`.

A population is a list of kinds of people, each with a probability. Scores lie on a grid that is far
finer than any bin, so the exact figures, from the clear scores, are sums over the list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, softmax
from scipy.stats import rankdata

from protocols.tasks.error_table import ErrorTable
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray
from protocols.tasks.score_table import ScoreTable
from protocols.tasks.training import one_hot
from tests.support.patients import dense

GRID = 801
REACH = 4.0
SPREAD = 1.2
"""Standard deviation of the logit of the true risk: a model of moderate discrimination."""
HALVINGS = 60
MISCALIBRATIONS = ("calibrated", "overconfident", "shifted", "wavy")
FEW_SCORES = {
    "few scores": ((0.5, 0.8), (0.3, 1.2), (0.1, 1.6)),
    "a rare input": ((0.05, 0.5), (0.4, 1.0)),
    "two clusters": ((0.15, 1.1), (0.5, 0.05), (0.5, 0.1)),
}
"""Calibrated models of yes/no inputs: how frequent each is, and its weight in the logit."""
ERRORS = ("normal", "skewed", "heavy tails", "wider at the top")
LEVELS = 3


@dataclass(frozen=True)
class Population:
    """Kinds of people: probabilities (kinds,), what each adds (kinds, coordinates), the figures."""

    shares: FloatArray
    adds: FloatArray
    exact: Mapping[str, float]


def scores(prevalence: float, shape: str, table: ScoreTable) -> Population:
    """Return people with a yes/no outcome of this prevalence, scored by a model of this shape."""
    if shape in FEW_SCORES:
        return few_scores(prevalence, FEW_SCORES[shape], table)
    normal = np.linspace(-REACH, REACH, GRID)
    share = _normal(normal)
    centre = _centre(share, SPREAD * normal, prevalence)
    truth = centre + SPREAD * normal
    return _scored(share, truth, _miscalibrated(truth, centre, normal, shape), table)


def few_scores(
    prevalence: float, inputs: Sequence[tuple[float, float]], table: ScoreTable
) -> Population:
    """Return people with yes/no inputs (frequency, weight), scored by a calibrated model."""
    share, logits = np.ones(1), np.zeros(1)
    for frequency, weight in inputs:
        share = np.concatenate([share * (1 - frequency), share * frequency])
        logits = np.concatenate([logits, logits + weight])
    truth = _centre(share, logits, prevalence) + logits
    return _scored(share, truth, truth, table)


def _scored(
    share: FloatArray, truth: FloatArray, given: FloatArray, table: ScoreTable
) -> Population:
    """Return people of a true and a given logit, with both labels as the true one says."""
    risk, score = expit(truth), expit(given)
    shares = np.concatenate([share * (1 - risk), share * risk])
    both, labels = np.tile(score, 2), np.repeat([0, 1], len(score))
    return _of_scores(shares, both[:, None], labels[:, None], table)


def _normal(values: FloatArray) -> FloatArray:
    density = np.exp(-(values**2) / 2)
    return np.asarray(density / density.sum(), dtype=np.float64)


def _centre(share: FloatArray, logits: FloatArray, prevalence: float) -> float:
    """Return what to add to the logits, so that the mean risk is the prevalence."""
    low, high = logit(prevalence) - 2 * REACH, logit(prevalence) + 2 * REACH
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (share * expit(middle + logits)).sum() > prevalence
        low, high = (low, middle) if above else (middle, high)
    return float(low)


def _miscalibrated(truth: FloatArray, centre: float, normal: FloatArray, shape: str) -> FloatArray:
    shapes = {
        "calibrated": truth,
        "overconfident": centre + 1.5 * (truth - centre),
        "shifted": truth + 0.4,
        "wavy": truth + 0.4 * np.sin(3 * normal),
    }
    return shapes[shape]


def levels(shape: str, table: ScoreTable, generator: np.random.Generator) -> Population:
    """Return people with an outcome of three levels, scored by a model of this shape."""
    logits = generator.normal((0.5, 0.0, -1.0), 1.2, (GRID, LEVELS))
    risks = softmax(logits, axis=1)
    distorted = {
        "calibrated": logits,
        "overconfident": 1.5 * logits,
        "shifted": logits + np.array([0.4, 0.0, -0.2]),
        "wavy": logits + 0.4 * np.sin(2 * logits),
    }[shape]
    outcome = np.repeat(np.arange(LEVELS), GRID)
    shares = risks.T.reshape(-1) / GRID
    scored = np.tile(softmax(distorted, axis=1), (LEVELS, 1))
    return _of_scores(shares, scored, one_hot(outcome.astype(float), LEVELS), table)


def _of_scores(
    shares: FloatArray, scored: FloatArray, labels: IntArray, table: ScoreTable
) -> Population:
    groups = np.zeros(len(shares), dtype=np.int64)
    adds = dense(table.contributions(scored, labels, groups), table.dimension)
    return Population(shares, adds, _exact_of_scores(shares, scored, labels, table))


def _exact_of_scores(
    shares: FloatArray, scored: FloatArray, labels: IntArray, table: ScoreTable
) -> dict[str, float]:
    by_class = list(zip(scored.T, labels.T, strict=True))
    exact = {
        "auc": [_auc(shares, *pair) for pair in by_class],
        "expected_calibration_error": [_error(shares, *pair, table) for pair in by_class],
    }
    if table.classes == 1:
        right = (scored[:, 0] >= 0.5) == (labels[:, 0] == 1)
        exact["calibration_in_the_large"] = [(shares * (labels[:, 0] - scored[:, 0])).sum()]
    else:
        right = labels[np.arange(len(labels)), scored.argmax(axis=1)] == 1
    exact["accuracy"] = [(shares * right).sum()]
    return {name: float(np.mean(values)) for name, values in exact.items()}


def _auc(shares: FloatArray, score: FloatArray, label: IntArray) -> float:
    place = rankdata(score, method="dense") - 1
    yes, no = (np.bincount(place, shares * (label == of)) for of in (1, 0))
    return float((yes * (np.cumsum(no) - no / 2)).sum() / (yes.sum() * no.sum()))


def _error(shares: FloatArray, score: FloatArray, label: IntArray, table: ScoreTable) -> float:
    bins = table.score_bins(score)
    return float(np.abs(np.bincount(bins, shares * (label - score))).sum())


def errors(spread: float, shape: str, table: ErrorTable) -> Population:
    """Return people with a numeric outcome, whose errors have this spread and shape."""
    target = np.linspace(-0.9, 0.9, 61)
    size = np.linspace(-REACH, REACH, 161)
    y, z = (grid.reshape(-1) for grid in np.meshgrid(target, size))
    standard = {
        "normal": z,
        "skewed": np.exp(0.8 * z) - np.exp(0.32),
        "heavy tails": z * np.abs(z) / 1.7,
        "wider at the top": z * (1 + y),
    }[shape]
    shares = np.tile(_normal(target / 0.4), len(size)) * np.repeat(_normal(size), len(target))
    error = np.clip(spread * standard, -1, 1)
    adds = dense(table.contributions(error, y, np.zeros(len(y), dtype=np.int64)), table.dimension)
    mean = (shares * y).sum()
    deviation = (shares * (y - mean) ** 2).sum() / 4
    exact = {
        "mean_absolute_error": float((shares * np.abs(error)).sum()),
        "mean_residual": float((shares * error).sum()),
        "variance_explained": float(1 - (shares * error**2).sum() / deviation),
    }
    return Population(shares, adds, exact)
