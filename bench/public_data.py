"""The data sets of the utility bench: cohorts of four countries, features and a training task.

Besides the four hospitals there are two that scikit-learn ships, each split by one feature into
four countries of comparable size. No setting was chosen on them. Bounds, centres and spreads are
public constants. For breast cancer they follow from the published description of the data alone,
which states the smallest and the largest value of every feature. For diabetes they are round
numbers from clinical practice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import heart
from client.records.cohort import Cohort, select
from client.records.own_country import with_own_country
from protocols.tasks import Family, Feature, FeatureKind, TrainGlm
from protocols.tasks.by_country import country_feature
from protocols.tasks.features import FloatArray
from protocols.tasks.step_size import RULE

TARGET = "target"
TRAINING_SHARE = 2 / 3
ROUNDED_TO = 10
"""Public numbers of training patients are multiples of this."""


@dataclass(frozen=True)
class DataSet:
    """One data set as four countries; rounds and learning rate of its task are preliminary."""

    name: str
    task: TrainGlm
    features: tuple[Feature, ...]
    cohorts: tuple[Cohort, ...]


def hospitals(folder: Path) -> DataSet:
    """Return the four heart-disease hospitals, from the files in a folder."""
    features, task = heart.features(), heart.task(heart.TRAINING)
    used = task.names_used(features)
    cohorts = [select(records, features, used) for records in heart.hospitals(folder).values()]
    return DataSet("heart disease", task, features, tuple(cohorts))


def hospitals_by_country(folder: Path) -> DataSet:
    """Return the hospitals with a study in which each has a baseline of its own."""
    features = (*heart.features(), country_feature(sorted(heart.HOSPITALS)))
    task = heart.task(heart.TRAINING).model_copy(update={"by_country": True})
    used = task.names_used(features)
    cohorts = [
        select(with_own_country(records, country), features, used)
        for country, records in heart.hospitals(folder).items()
    ]
    return DataSet("heart disease, by_country", task, features, tuple(cohorts))


BREAST_CANCER = {
    "radius": (6, 29),
    "texture": (9, 40),
    "perimeter": (40, 190),
    "area": (140, 2510),
    "smoothness": (0.05, 0.17),
    "compactness": (0.0, 0.35),
    "concavity": (0.0, 0.43),
    "concave_points": (0.0, 0.21),
    "symmetry": (0.1, 0.31),
    "fractal_dimension": (0.04, 0.1),
}
"""The published range of each mean, rounded outwards. In the files these are the first columns."""
TEXTURES = (16, 19, 22)
"""Edges between the four countries."""
CENTRE, SPREAD = 1 / 3, 1 / 6
"""Of a range: measurements of cells have a long upper tail, and most lie in the lower half."""


def breast_cancer() -> DataSet:
    """Return 569 samples of breast tissue: is it malignant? Countries differ in mean texture."""
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 (slow; few modules need it)

    data = load_breast_cancer()
    columns = dict(zip(BREAST_CANCER, data.data.T, strict=False))
    features = [
        _number(name, (low, high), low + CENTRE * (high - low), SPREAD * (high - low))
        for name, (low, high) in BREAST_CANCER.items()
    ]
    country = np.digitize(columns["texture"], TEXTURES)
    return _data_set("breast cancer", features, columns, data.target == 0, country)


DIABETES = {
    "age": ((18, 90), 50, 13),
    "male": None,
    "bmi": ((15, 50), 26, 4.5),
    "blood_pressure": ((50, 150), 95, 14),
    "cholesterol": ((80, 350), 190, 35),
    "ldl": ((30, 250), 115, 30),
    "hdl": ((15, 110), 50, 13),
    "cholesterol_to_hdl": ((1.5, 10), 4, 1.3),
    "log_triglycerides": ((3, 6.5), 4.6, 0.5),
    "sugar": ((50, 150), 90, 12),
}
"""Bounds, centre and spread, in the order of the file's columns; None for yes or no."""
AGES = (40, 50, 60)
PROGRESSED = 150
"""A measure of progression above this counts as yes."""


def diabetes() -> DataSet:
    """Return 442 patients with diabetes: has it progressed in a year? Countries differ in age."""
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 (slow; few modules need it)

    data = load_diabetes(scaled=False)
    columns = dict(zip(DIABETES, data.data.T, strict=True))
    columns["male"] = columns["male"] - 1
    features = [
        _number(name, *terms) if terms else Feature(name=name, type=FeatureKind.BOOLEAN)
        for name, terms in DIABETES.items()
    ]
    country = np.digitize(columns["age"], AGES)
    return _data_set("diabetes", features, columns, data.target > PROGRESSED, country)


def _number(name: str, bounds: tuple[float, float], centre: float, spread: float) -> Feature:
    return Feature(name=name, type=FeatureKind.NUMERIC, bounds=bounds, centre=centre, spread=spread)


def _data_set(
    name: str,
    inputs: Sequence[Feature],
    columns: Mapping[str, FloatArray],
    truth: Any,
    country: Any,
) -> DataSet:
    features = (*inputs, Feature(name=TARGET, type=FeatureKind.BOOLEAN))
    everything = {**columns, TARGET: truth.astype(np.float64)}
    cohorts = [_cohort(features, everything, country == k) for k in range(4)]
    patients = len(country)
    task = TrainGlm(
        family=Family.LOGISTIC,
        target=TARGET,
        rounds=RULE.fewest_rounds,
        learning_rate=1.0,
        clip_norm=1.0,
        patients=round(TRAINING_SHARE * patients / ROUNDED_TO) * ROUNDED_TO,
        patients_bound=4 * patients,
        evaluation=None,
    )
    return DataSet(name, task, features, tuple(cohorts))


def _cohort(features: tuple[Feature, ...], columns: Mapping[str, FloatArray], here: Any) -> Cohort:
    ids = tuple(f"patient {number}" for number in np.flatnonzero(here))
    return Cohort(features, ids, {name: np.asarray(c[here]) for name, c in columns.items()})
