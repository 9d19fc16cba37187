"""Features, tasks and cohorts that the tests of tasks and learning share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from client.records.cohort import Cohort
from client.records.quality_report import QualityReport
from client.records.source import RecordedFeature, Records
from client.tasks.evaluate import evaluation_contributions
from protocols.numerics.mechanism import Mechanism
from protocols.numerics.rounding import Entropy
from protocols.tasks import Family, Feature, Predictor, TrainGlm, TrainMlp, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.score_table import Contributions

AGE = Feature(name="age", type="numeric", bounds=(0, 100), centre=50, spread=10)
SEX = Feature(name="sex", type="categorical", levels=("female", "male"))
SMOKER = Feature(name="smoker", type="boolean", missing="impute", fill=0.5)
SUGAR = Feature(name="sugar", type="numeric", unit="mg/dl", bounds=(0, 400), missing="indicator")
ILL = Feature(name="ill", type="boolean")
PRESSURE = Feature(name="pressure", type="numeric", unit="mmHg", bounds=(80, 200))
STAGE = Feature(name="stage", type="categorical", levels=("none", "mild", "severe"))
FEATURES = (AGE, SEX, SMOKER, SUGAR, ILL, PRESSURE, STAGE)
INPUTS = ("age", "sex", "smoker", "sugar")
TARGETS = {Family.LOGISTIC: "ill", Family.LINEAR: "pressure", Family.MULTINOMIAL: "stage"}


def glm(family: Family = Family.LOGISTIC, **changes: Any) -> TrainGlm:
    fields: dict[str, Any] = {
        "family": family,
        "target": TARGETS[family],
        "inputs": INPUTS,
        "rounds": 10,
        "learning_rate": 0.5,
        "patients": 100,
        "patients_bound": 1000,
    }
    return TrainGlm(**fields | changes)


def mlp(family: Family = Family.LOGISTIC, **changes: Any) -> TrainMlp:
    fields = glm(family).model_dump(exclude={"kind"}) | {"hidden": (5, 3)}
    return TrainMlp(**fields | changes)


def series_parts(inputs: int, channels: int, kernel: int, outputs: int) -> list[dict[str, Any]]:
    """Return the parts of the built-in module `series-conv`, as a study declares them."""
    return [
        {"name": "1.weight", "shape": (channels, 1, kernel)},
        {"name": "1.bias", "shape": (channels,), "initial": "zeros"},
        {"name": "2.weight", "shape": (channels,), "initial": "ones"},
        {"name": "2.bias", "shape": (channels,), "initial": "zeros"},
        {"name": "5.weight", "shape": (outputs, channels * inputs)},
        {"name": "5.bias", "shape": (outputs,), "initial": "zeros"},
    ]


def module(family: Family = Family.LOGISTIC, **changes: Any) -> TrainModule:
    fields = glm(family).model_dump(exclude={"kind"}) | {
        "module": "series-conv",
        "version": 1,
        "parameters": {"channels": 2, "kernel": 3},
        "parts": series_parts(6, 2, 3, 3 if family is Family.MULTINOMIAL else 1),
    }
    return TrainModule(**fields | changes)


def score_counts(task: Predictor, people: Cohort, model: FloatArray) -> FloatArray:
    """Return each patient's whole vector in an evaluation of a model, (patients, dimension)."""
    rows = task.rows(people.features, people.columns)
    outputs = task.outputs(people.features, model, rows)
    added = evaluation_contributions(task, people, outputs)
    return dense(added, task.score_table(people.features).dimension)


def dense(added: Contributions, dimension: int) -> FloatArray:
    """Return whole vectors (patients, dimension) of contributions."""
    vectors = np.zeros((len(added.values), dimension))
    vectors[np.arange(len(vectors))[:, None], added.coordinates] = added.values
    return vectors


def columns(patients: int, seed: int = 0) -> dict[str, FloatArray]:
    draw = np.random.default_rng(seed)
    sugar = draw.uniform(0, 400, patients)
    sugar[draw.random(patients) < 0.3] = np.nan
    smoker = draw.integers(0, 2, patients).astype(float)
    smoker[draw.random(patients) < 0.2] = np.nan
    return {
        "age": draw.uniform(20, 90, patients),
        "sex": draw.integers(0, 2, patients).astype(float),
        "smoker": smoker,
        "sugar": sugar,
        "ill": draw.integers(0, 2, patients).astype(float),
        "pressure": draw.uniform(80, 200, patients),
        "stage": draw.integers(0, 3, patients).astype(float),
    }


def cohort(patients: int, seed: int = 0) -> Cohort:
    ids = tuple(f"p{n}" for n in range(patients))
    return Cohort(FEATURES, ids, columns(patients, seed))


def records(patients: int, seed: int = 0, **replaced: FloatArray) -> Records:
    return Records(
        ids=tuple(f"p{n}" for n in range(patients)),
        features=recorded(),
        columns=columns(patients, seed) | replaced,
        version="sha256:" + "1" * 64,
        report=QualityReport(patients, 0, (), ()),
    )


def recorded() -> Mapping[str, RecordedFeature]:
    return {f.name: RecordedFeature(f.name, f.type, f.unit, f.bounds, f.levels) for f in FEATURES}


def release(task: Any, phase: str, noise_std: int = 100) -> Mechanism:
    template = next(m for m in task.schedule(FEATURES) if m.phase == phase)
    with_noise: Mechanism = template.model_copy(update={"noise_std": noise_std})
    return with_noise


def entropy(seed: int = 0) -> Entropy:
    """Return a source of random bytes that are the same every time."""
    return np.random.default_rng(seed).bytes
