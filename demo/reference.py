"""Train the reference model on pooled records: all in one place, without privacy.

Only a demo can do this, because its records are invented or public.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.records.cohort import Cohort, select
from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from demo.world import Site, World
from protocols.tasks import Feature, TrainGlm
from protocols.tasks.features import Columns, FeatureKind, FloatArray
from protocols.tasks.training import HALF, sigmoid

RIDGE = 1e-3
"""The ridge penalty per patient; keeps Newton's steps finite if a level is rare."""
NEWTON_STEPS = 25


@dataclass(frozen=True)
class Quality:
    """How well scores separate positive from negative labels."""

    auc: float
    accuracy: float


def quality(scores: FloatArray, truth: FloatArray) -> Quality:
    """Return the quality of probabilities (patients,) against 0/1 labels."""
    right = (scores >= HALF) == (truth > HALF)
    return Quality(_auc(scores, truth), float(right.mean()))


def exact_figures(
    scores: FloatArray, truth: FloatArray, edges: Sequence[float]
) -> Mapping[str, float]:
    """Return every figure of an evaluation by its name in a result, from clear scores.

    `edges` are those of the study's bins, 0 and 1 included; the expected calibration error needs
    them.
    """
    measured = quality(scores, truth)
    bins = np.searchsorted(np.asarray(edges)[1:-1], scores, side="right")
    gaps = np.bincount(bins, truth - scores)
    return {
        "accuracy": measured.accuracy,
        "auc": measured.auc,
        "calibration_in_the_large": float((truth - scores).mean()),
        "expected_calibration_error": float(np.abs(gaps).sum() / len(truth)),
    }


def _auc(scores: FloatArray, truth: FloatArray) -> float:
    """Return the share of correctly ranked pairs; ties count half (Mann and Whitney)."""
    _, rank_index, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[rank_index]
    positive = truth > 0.5
    positives = int(positive.sum())
    wins = rank[positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * (len(truth) - positives)))


def pooled_model(world: World) -> FloatArray:
    """Return the weights fitted to all training records together, without privacy."""
    columns = records(world)
    rows = world.task.rows(world.features, columns)
    return _newton(rows, columns[world.task.target])


def _newton(rows: FloatArray, truth: FloatArray) -> FloatArray:
    weights = np.zeros(rows.shape[1])
    ridge = RIDGE * len(rows)
    for _ in range(NEWTON_STEPS):
        chance = sigmoid(rows @ weights)
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows
        slope = rows.T @ (truth - chance) - ridge * weights
        weights += np.linalg.solve(curvature + ridge * np.eye(len(weights)), slope)
    return weights


def records(world: World) -> Columns:
    """Return the people of all countries whose records the nodes read, held out or not."""
    return _pool(_cohort(world, site, site.records) for site in world.sites)


def newcomers(world: World) -> Columns:
    """Return the people of all countries whose records no node reads."""
    return _pool(_cohort(world, site, site.newcomers) for site in world.sites)


def predict(world: World, weights: FloatArray, columns: Columns) -> FloatArray:
    """Return probabilities (patients,)."""
    rows = world.task.rows(world.features, columns)
    return world.task.predict(world.features, weights, rows)[:, 0]


def write_study_csv(path: Path, features: Sequence[Feature], columns: Columns) -> None:
    """Write people in the study's terms, as `result predict` reads them."""
    texts = [[_text(feature, value) for value in columns[feature.name]] for feature in features]
    lines = [",".join(row) for row in zip(*texts, strict=True)]
    header = ",".join(feature.name for feature in features)
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def _text(feature: Feature, value: float) -> str:
    if np.isnan(value):
        return ""
    if feature.type is FeatureKind.CATEGORICAL:
        return feature.levels[int(value)]
    return f"{value:g}" if feature.type is FeatureKind.NUMERIC else str(bool(value)).lower()


def read_predictions(path: Path, target: str) -> NDArray[np.float64]:
    """Return the column of predictions that `result predict` wrote."""
    with path.open(encoding="utf-8", newline="") as handle:
        return np.array([float(row[target]) for row in csv.DictReader(handle)])


def _cohort(world: World, site: Site, path: Path) -> Cohort:
    opted_out = read_opt_outs(site.opted_out) if site.opted_out else {}
    records = CsvSource(path, read_dictionary(site.dictionary)).read(opted_out)
    return select(records, world.features, names_used(world.task, world.features))


def names_used(task: TrainGlm, features: Sequence[Feature]) -> tuple[str, ...]:
    """Return the target and the inputs."""
    return (task.target, *(feature.name for feature in task.input_features(features)))


def _pool(cohorts: Iterable[Cohort]) -> dict[str, FloatArray]:
    parts = [cohort.columns for cohort in cohorts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
