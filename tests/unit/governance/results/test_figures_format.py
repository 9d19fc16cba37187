"""Figures are checked when a result is read; what the coordinator writes passes."""

import pytest
from pydantic import TypeAdapter, ValidationError

from governance.results.figures_format import (
    LARGEST_FIGURE,
    CellFigures,
    EvaluationFigures,
    Interval,
    TableFigures,
)
from server.learning.estimates import Estimate
from server.learning.evaluate import EvaluationReport, GroupEvaluation
from server.learning.tables import Cell, Table

AUC = Estimate(0.8, 0.7, 0.9)


def test_the_evaluation_that_the_coordinator_writes_has_the_form() -> None:
    group = GroupEvaluation("everybody", Estimate(80.0, 70.0, 90.0), {"auc": AUC, "accuracy": None})
    suppressed = GroupEvaluation("female", None, {"auc": None})
    report = EvaluationReport(group, (suppressed,)).to_json()
    figures = EvaluationFigures.model_validate(report)
    assert figures.everybody.__pydantic_extra__["auc"] == Interval(value=0.8, low=0.7, high=0.9)
    assert figures.subgroups[0].patients is None


def test_the_table_that_the_coordinator_writes_has_the_form() -> None:
    cells = (Cell(("F",), 30, 20, 40), Cell(("M",), None, None, None))
    table = TableFigures.model_validate(Table(("sex",), cells, 10, 3.0).to_json())
    assert [cell.suppressed for cell in table.cells] == [False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**54, "0.5", True, None])
def test_a_figure_is_a_number_in_reach(value: object) -> None:
    with pytest.raises(ValidationError):
        Interval.model_validate({"value": value, "low": 0.0, "high": 1.0})


@pytest.mark.parametrize(
    "changes",
    [
        {"count": None},
        {"low": None},
        {"suppressed": True},
        {"count": LARGEST_FIGURE + 1},
        {"count": 1.0},
    ],
)
def test_a_cell_has_a_count_and_an_interval_or_is_suppressed(changes: dict[str, object]) -> None:
    cell = {"labels": ["F"], "count": 30, "low": 20, "high": 40, "suppressed": False}
    TypeAdapter(CellFigures).validate_python(cell)
    with pytest.raises(ValidationError):
        CellFigures.model_validate(cell | changes)
