from protocols.tasks import CountPatients, Task
from server.learning.absent_countries import without_absent
from tests.support.patients import INPUTS, glm

COUNT = CountPatients(
    strata=[{"feature": "sex"}, {"feature": "country"}], patients_bound=10, by_country=True
)
TRAINING = glm(
    inputs=(*INPUTS, "country"), by_country=True, evaluation={"subgroup": {"feature": "country"}}
)
INTERVAL = {"value": 12.0, "low": 2.0, "high": 22.0}


def cell(*labels: str, count: int = 12) -> dict[str, object]:
    counts = {"count": count, "low": 2, "high": 22}
    return {"labels": list(labels), **counts, "suppressed": False}


def test_noise_in_the_cell_of_a_country_that_is_not_in_the_sum_is_no_count() -> None:
    table = {"groupings": ["sex", "country"], "cells": [cell("male", "DK"), cell("male", "NO")]}
    there, absent = without_absent(COUNT, table, ("DK", "EE"))["cells"]
    assert there == cell("male", "DK")
    suppressed = {"count": None, "low": None, "high": None, "suppressed": True}
    assert absent == {"labels": ["male", "NO"], **suppressed}


def test_the_figures_of_a_country_that_is_not_in_the_evaluation_are_suppressed() -> None:
    everybody = {"group": "everybody", "patients": INTERVAL, "auc": INTERVAL}
    groups = [{**everybody, "group": country} for country in ("DK", "NO")]
    findings = {"everybody": everybody, "subgroups": groups}
    kept = without_absent(TRAINING, findings, ("DK",))
    assert kept["everybody"] == everybody
    assert kept["subgroups"] == [groups[0], {"group": "NO", "patients": None, "auc": None}]


def test_what_is_not_by_country_stays() -> None:
    ordinary = COUNT.model_copy(update={"by_country": False})
    table = {"groupings": ["sex", "country"], "cells": [cell("male", "north")]}
    other: Task = glm(by_country=True, inputs=(*INPUTS, "country"))
    evaluation = {"everybody": {}, "subgroups": [{"group": "male", "patients": INTERVAL}]}
    assert without_absent(ordinary, table, ("DK",)) == table
    assert without_absent(other, evaluation, ("DK",)) == evaluation
    assert without_absent(other, {}, ("DK",)) == {}
