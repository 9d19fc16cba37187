"""The data sets of the utility bench that a package ships: four countries each, within bounds."""

from collections.abc import Callable

import numpy as np
import pytest

from bench import public_data
from bench.public_data import TARGET, DataSet
from client.records.cohort import Cohort


@pytest.mark.parametrize(
    ("load", "patients", "yes"),
    [(public_data.breast_cancer, 569, 212), (public_data.diabetes, 442, 200)],
)
def test_every_patient_is_in_one_of_four_countries_of_comparable_size(
    load: Callable[[], DataSet], patients: int, yes: int
) -> None:
    data = load()
    sizes = [cohort.patients for cohort in data.cohorts]
    assert len(sizes) == 4
    assert sum(sizes) == patients
    assert max(sizes) < 1.5 * min(sizes)
    assert sum(int(cohort.columns[TARGET].sum()) for cohort in data.cohorts) == yes
    data.task.check(data.features)
    assert abs(data.task.patients - 2 * patients / 3) <= public_data.ROUNDED_TO / 2


@pytest.mark.parametrize("load", [public_data.breast_cancer, public_data.diabetes])
def test_public_bounds_hold_and_public_scales_are_sensible(load: Callable[[], DataSet]) -> None:
    data = load()
    for feature in data.task.input_features(data.features):
        values = np.concatenate([cohort.columns[feature.name] for cohort in data.cohorts])
        low, high = feature.limits
        assert low <= values.min(), feature.name
        assert values.max() <= high, feature.name
        scaled = feature.scaled(values)
        assert abs(scaled.mean()) < 1.5, feature.name
        assert 0.3 < scaled.std() < 2, feature.name


def test_countries_differ_in_the_feature_that_splits_them() -> None:
    def medians(cohorts: tuple[Cohort, ...], name: str) -> list[float]:
        return [float(np.median(cohort.columns[name])) for cohort in cohorts]

    for data, name in ((public_data.breast_cancer(), "texture"), (public_data.diabetes(), "age")):
        values = medians(data.cohorts, name)
        assert values == sorted(values)
        assert len(set(values)) == 4
