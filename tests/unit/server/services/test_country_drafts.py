from typing import Any

import pytest

from governance.documents.study import Study
from server.services.country_drafts import with_country
from tests.support.documents import agreement, study_fields, training_fields

AGREED = agreement()
RESERVED = {"name": "country", "type": "categorical", "levels": ["DK", "EE", "NO", "PT"]}
COUNT: dict[str, Any] = {"kind": "stats/count", "patients_bound": 100, "by_country": True}


def drafted(task: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return with_country(study_fields(AGREED, task=task, **changes))


def trained(**task: Any) -> dict[str, Any]:
    return with_country(study_fields(AGREED) | training_fields(3, by_country=True, **task))


def test_a_draft_gets_the_feature_with_its_countries_in_order() -> None:
    completed = drafted(COUNT, countries=["PT", "DK", "NO", "EE"])
    assert completed["features"][-1] == RESERVED
    assert Study.model_validate(completed).task.by_country


@pytest.mark.parametrize(("inputs", "completed"), [([], []), (["sex"], ["sex", "country"])])
def test_named_inputs_get_the_country_and_unnamed_ones_hold_it_already(
    inputs: list[str], completed: list[str]
) -> None:
    values = trained(inputs=inputs)
    assert values["task"]["inputs"] == completed
    assert "country" in Study.model_validate(values).task.names_used(
        Study.model_validate(values).features
    )


def test_a_table_gets_the_country_as_its_first_stratum() -> None:
    assert drafted(COUNT)["task"]["strata"] == [{"feature": "country"}]
    by_sex = drafted(COUNT | {"strata": [{"feature": "sex"}]})
    assert by_sex["task"]["strata"] == [{"feature": "country"}, {"feature": "sex"}]


@pytest.mark.parametrize(
    "task",
    [
        COUNT | {"strata": [{"feature": "sex"}, {"feature": "country"}]},
        COUNT | {"kind": "stats/histogram", "of": {"feature": "country"}},
        training_fields(3, by_country=True, inputs=["country", "sex"])["task"],
        training_fields(
            3, by_country=True, inputs=["sex"], evaluation={"subgroup": {"feature": "country"}}
        )["task"],
    ],
)
def test_a_task_that_uses_the_country_already_stays_as_it_is(task: dict[str, Any]) -> None:
    assert drafted(task)["task"] == task


def test_a_complete_draft_and_one_without_by_country_stay_as_they_are() -> None:
    complete = drafted(COUNT)
    assert with_country(complete) == complete
    for task in (COUNT | {"by_country": False}, {"kind": "stats/count", "patients_bound": 1}):
        plain = study_fields(AGREED, task=task)
        assert with_country(plain) == plain


@pytest.mark.parametrize(
    "broken",
    [
        {"task": None},
        {"task": ["by_country"]},
        {"task": COUNT | {"by_country": "yes"}},
        {"task": COUNT, "countries": None},
        {"task": COUNT, "countries": [1, 2]},
        {"task": COUNT, "countries": "DK"},
        {"task": COUNT, "features": {"country": 1}},
        {"task": COUNT, "features": 7},
    ],
)
def test_a_draft_of_another_form_is_left_to_the_reading(broken: dict[str, Any]) -> None:
    values = study_fields(AGREED) | broken
    assert with_country(values) == values


@pytest.mark.parametrize(
    "task",
    [
        COUNT | {"strata": 5},
        COUNT | {"strata": [None, 3]},
        COUNT | {"of": 4},
        {"by_country": True},
        {"by_country": True, "kind": "train/glm", "inputs": 5, "evaluation": 7},
    ],
)
def test_a_task_of_another_form_stops_nothing(task: dict[str, Any]) -> None:
    assert drafted(task)["features"][-1] == RESERVED
