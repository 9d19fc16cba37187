import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import heart, public_data, utility
from bench.utility import (
    BUDGETS,
    BY_COUNTRY,
    DELTA,
    HOSPITALS,
    ROWS,
    SEEDS,
    Bench,
    Plan,
    Row,
    Scores,
    as_json,
    auc,
    shortfalls,
)
from governance.budget.accounting import epsilon
from protocols.tasks.schedule import TRAIN

NEEDS_DATA = pytest.mark.skipif(
    not heart.DEFAULT_FOLDER.is_dir(), reason="the heart-disease files are not beside the project"
)
TASK = heart.task(heart.TRAINING)
PLAN = Plan(TASK, next(m for m in TASK.schedule(heart.features()) if m.phase == TRAIN))
SCORES = Scores(mean_of_centres=0.81234, pooled=0.8, auc=0.9, majority=0.7)


def table(**changes: float) -> list[dict[str, Any]]:
    """Return rows in which shared noise loses less than local noise in each country."""
    means = {4: 0.83, 3: 0.82, 2: 0.81, 1: 0.80}
    figures = {h: Scores(mean, mean, 0.9, 0.7) for h, mean in means.items()}
    rows = [as_json(HOSPITALS, row, PLAN, figures[row.honest]) for row in ROWS]
    return [row | changes if row["noise"] == "shared" else row for row in rows]


def test_the_rows_are_those_of_the_question() -> None:
    assert len(ROWS) == 13
    assert BUDGETS == (1.0, 0.1, 0.05)
    assert list(SEEDS) == list(range(40))
    assert {(row.noise, row.honest, row.epsilon) for row in ROWS} == {
        ("none", 4, None),
        *(("shared", h, e) for h in (4, 3, 2) for e in BUDGETS),
        *(("per-country", 1, e) for e in BUDGETS),
    }


def test_a_row_of_the_file() -> None:
    assert as_json("invented", Row("shared", 3, 0.1), PLAN, SCORES) == {
        "data": "invented",
        "noise": "shared",
        "h": 3,
        "epsilon": 0.1,
        "delta": 1e-4,
        "rounds": 6,
        "learning_rate": 1.0,
        "mean_of_centres": 0.8123,
        "pooled": 0.8,
        "auc": 0.9,
        "majority": 0.7,
        "resplits": 40,
    }


def test_goals_that_are_met_are_not_named() -> None:
    assert shortfalls(table()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mean_of_centres": 0.819}, "shared h=4, ε=1, mean_of_centres: 0.819 is below 0.82"),
        ({"auc": 0.86}, "shared h=4, ε=1, auc: 0.86 is below 0.865"),
        ({"mean_of_centres": 0.804}, "shared h=4, ε=0.1, mean_of_centres: 0.804 is below 0.805"),
        ({"mean_of_centres": 0.774}, "shared h=4, ε=0.05, mean_of_centres: 0.774 is below 0.775"),
        ({"mean_of_centres": 0.789}, "shared h=2, ε=0.1, mean_of_centres: 0.789 is below 0.79"),
        ({"pooled": 0.79}, "shared h=2, ε=0.05, pooled: 0.79 is below 0.8"),
    ],
)
def test_a_missed_goal_is_named(changes: dict[str, float], says: str) -> None:
    assert f"{HOSPITALS}, {says}" in shortfalls(table(**changes))


def test_the_other_data_sets_have_no_goals() -> None:
    other = [row | {"data": "other", "mean_of_centres": 0.1} for row in table()]
    assert shortfalls([*table(), *other]) == []


def test_auc_gives_half_credit_in_ties() -> None:
    scores, truth = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    assert auc(scores, truth) == 0.875
    assert auc(-scores, truth) == 0.125
    assert auc(np.zeros(4), truth) == 0.5


def test_without_the_data_it_says_so_and_exits_with_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["utility", "--data", str(tmp_path / "absent")])
    assert utility.main() == 0
    output = capsys.readouterr().out
    assert output.startswith("Skipped: the heart-disease files are not in")
    assert "--data FOLDER" in output


class OneProcess:
    """A pool that runs its work in this process."""

    def starmap(self, function: Callable[..., Any], tasks: Sequence[Sequence[Any]]) -> list[Any]:
        return [function(*task) for task in tasks]


@NEEDS_DATA
@pytest.mark.parametrize(
    "row", [Row("shared", 4, 1.0), Row("shared", 2, 0.1), Row("per-country", 1, 1.0)]
)
def test_no_row_spends_more_than_it_states(row: Row) -> None:
    plan = Bench(public_data.hospitals(heart.DEFAULT_FOLDER)).plan(row)
    spent = epsilon((plan.mechanism,), row.honest, DELTA)
    assert row.epsilon is not None
    assert 0.99 * row.epsilon < spent <= row.epsilon
    assert plan.task.rounds == plan.mechanism.rounds


@NEEDS_DATA
def test_a_resplit_reserves_a_third_of_every_hospital() -> None:
    bench = Bench(public_data.hospitals(heart.DEFAULT_FOLDER))
    masks = list(bench._test_masks(0))
    assert [int(mask.sum()) for mask in masks] == [101, 98, 41, 66]
    again = list(bench._test_masks(0))
    assert all((a == b).all() for a, b in zip(masks, again, strict=True))
    assert any((a != b).any() for a, b in zip(masks, bench._test_masks(1), strict=True))


@NEEDS_DATA
def test_a_small_run_learns_and_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "results" / "utility.json"
    monkeypatch.setattr(utility, "RESULTS", written)
    monkeypatch.setattr(utility, "SEEDS", range(1))
    monkeypatch.setattr(utility, "TRAININGS", 1)
    monkeypatch.setattr(utility, "workers", lambda _: _Here())
    utility.run(heart.DEFAULT_FOLDER, 1)
    rows: list[Mapping[str, Any]] = json.loads(written.read_text())["rows"]
    assert [row["noise"] for row in rows] == [row.noise for row in (*3 * ROWS, *BY_COUNTRY)]
    assert list(dict.fromkeys(row["data"] for row in rows)) == [
        HOSPITALS,
        "breast cancer",
        "diabetes",
        "heart disease, by_country",
    ]
    assert rows[0]["mean_of_centres"] > 0.75
    assert rows[0]["auc"] > 0.8
    output = capsys.readouterr().out
    for part in ("majority class of each centre", "FLamby", "0.747", "740 patients"):
        assert part in output


class _Here:
    def __enter__(self) -> OneProcess:
        return OneProcess()

    def __exit__(self, *_: object) -> None:
        return None
