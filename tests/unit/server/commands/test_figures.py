"""What `result show` prints of an evaluation and of a table."""

from typing import Any

import pytest

from keys.identity import SigningKey
from protocols.tasks import CountPatients, Family
from server.commands.figures import EVALUATION_HEAD, TABLE_HEAD, cell_line, figure_lines
from tests.support.patients import FEATURES, PRESSURE, glm
from tests.support.results import made_result

KEY = SigningKey.generate().public
ERROR = {"value": 0.065, "low": 0.0601, "high": 0.07}
PATIENTS = {"value": 400.0, "low": 390.0, "high": 410.0}
CELL = {"labels": ["female"], "suppressed": False, "count": 12, "low": 8, "high": 16}


def shown(**fields: Any) -> str:
    return "\n".join(figure_lines(made_result(KEY, **fields)))


def evaluated(family: Family, bounds: tuple[float, float] = (40.0, 560.0), **figures: Any) -> str:
    everybody = {"group": "everybody", "patients": PATIENTS, **figures}
    evaluation = {"everybody": everybody, "subgroups": []}
    target = PRESSURE.model_copy(update={"bounds": bounds, "unit": "mg/dL"})
    features = tuple(target if each.name == target.name else each for each in FEATURES)
    return shown(task=glm(family), features=features, evaluation=evaluation)


def test_the_interval_is_named_once_above_the_figures() -> None:
    text = evaluated(Family.LOGISTIC, auc=ERROR, accuracy="too noisy", other=None)
    assert text.startswith(f"  {EVALUATION_HEAD}\n")
    assert text.count("95 % interval") == 1
    assert "range" not in text
    assert "too noisy (at this ε, for this number of patients)" in text
    assert "suppressed (too few patients)" in text


def test_the_interval_of_a_table_counts_the_noise_only() -> None:
    table = {"groupings": ["sex"], "cells": [CELL]}
    text = shown(task=CountPatients(patients_bound=10), coordinates=(), table=table)
    assert text.splitlines() == [f"  {TABLE_HEAD}", cell_line(CELL)]
    assert "noise only" in TABLE_HEAD


def test_errors_of_a_number_are_shown_in_its_unit_too() -> None:
    text = evaluated(Family.LINEAR, mean_absolute_error=ERROR, variance_explained=ERROR)
    assert "errors are shares of the range of pressure, 40 to 560" in text
    error, explained = text.splitlines()[-2:]
    assert error.endswith("0.065  [0.060, 0.070] of the range: 33.8  [31.2, 36.4] mg/dL")
    assert "range" not in explained


@pytest.mark.parametrize("bounds", [(-1e308, 1e308), (0.0, 1e-300), (0.0, 1e30)])
def test_a_range_without_a_sensible_width_is_not_used(bounds: tuple[float, float]) -> None:
    assert "range" not in evaluated(Family.LINEAR, bounds, mean_residual=ERROR)


def test_a_suppressed_cell_says_why() -> None:
    line = cell_line({"labels": ["female"], "suppressed": True})
    assert "suppressed (too small to show)" in line
