"""`by_country`: a country's own baseline, as the reserved feature `country` of a study.

Each node fills the feature in by itself: every patient gets the node's own country. So in each sum
the feature's coordinates hold the patients of one country each, and the noise of all countries that
took part: the coordinator sees a country's own noisy part there. Agreement and permits must allow
it. The sensitivity does not change, since each patient has one country.

A model that was trained so has a rule for a country that was not there: the mean of its outputs
with each country that trained it.
"""

from collections.abc import Sequence

import numpy as np

from protocols.errors import ProtocolFault
from protocols.tasks.features import (
    Columns,
    Condition,
    Feature,
    FeatureKind,
    FloatArray,
    by_name,
)
from protocols.tasks.stats import CountByFeature, CountPatients
from protocols.tasks.training import Predictor, Training

COUNTRY = "country"
"""The reserved name of the feature in a study with `by_country`."""


def country_feature(countries: Sequence[str]) -> Feature:
    """Return the feature that a study of these countries declares."""
    return Feature(name=COUNTRY, type=FeatureKind.CATEGORICAL, levels=tuple(countries))


def check_by_country(
    task: Training | CountPatients | CountByFeature,
    features: Sequence[Feature],
    countries: Sequence[str],
    conditions: Sequence[Condition],
) -> None:
    """Raise ProtocolFault if the task has `by_country`, and the study does not fit it."""
    if not task.by_country:
        return
    if isinstance(task, Training) and not isinstance(task, Predictor):
        raise _unfit(
            f"`{task.kind}` cannot use `by_country`",
            "only its module can apply the model, so that nobody could state what it uses for a "
            "country that was not there",
            "leave `by_country` out, or train another kind of model",
        )
    if by_name(features).get(COUNTRY) != country_feature(countries):
        raise _unfit(
            "`by_country` needs the feature `country` as it is reserved",
            "it is categorical, and its levels are the study's countries in their order: "
            f"{', '.join(countries)}",
            "leave the feature `country` out of the draft; `study check` adds it",
        )
    _check_use(task, features, conditions)


def _check_use(
    task: Training | CountPatients | CountByFeature,
    features: Sequence[Feature],
    conditions: Sequence[Condition],
) -> None:
    if any(condition.feature == COUNTRY for condition in conditions):
        raise _unfit(
            "A study with `by_country` has a condition on `country`",
            "all patients of a node have the same country",
            "leave the condition out, and name the countries under `countries`",
        )
    if isinstance(task, Training) and task.target == COUNTRY:
        raise _unfit(
            "A study with `by_country` predicts `country`",
            "all patients of a node have the same country",
            "choose another target",
        )
    if COUNTRY not in task.names_used(features):
        raise _unfit(
            "A study with `by_country` does not use the feature `country`",
            "each country's own sum would be visible for nothing",
            "add `country` to the inputs, to the strata or as the subgroup; or leave `by_country` "
            "out",
        )


def predict_by_country(
    task: Predictor,
    features: Sequence[Feature],
    model: FloatArray,
    columns: Columns,
    trained: Sequence[str],
) -> FloatArray:
    """Return predictions (patients, classes) of a model that was trained with `by_country`.

    `columns` has the country as an index into the feature's levels, NaN for one that is not there.
    For such a patient the model's outputs before the link function are averaged over the countries
    that `trained` it: for a linear model that is the mean of the countries' intercepts.
    """
    known = ~np.isnan(columns[COUNTRY])
    indices = [by_name(features)[COUNTRY].levels.index(country) for country in trained]
    outputs = [
        task.outputs(
            features,
            model,
            task.rows(features, {**columns, COUNTRY: np.where(known, columns[COUNTRY], index)}),
        )
        for index in indices
    ]
    mean = np.mean(outputs, axis=0)
    return task.predicted(features, np.where(known[:, None], outputs[0], mean))


def _unfit(what: str, why: str, fix: str) -> ProtocolFault:
    return ProtocolFault(what, why=why, fix=fix)
