import json
from typing import Any

import numpy as np
import pytest

from protocols.tasks import Family, TrainGlm
from protocols.tasks.bin_edges import with_edges
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.layout import Grouping
from server.learning.estimates import Estimate, Figure, Unreleased
from server.learning.evaluate import EvaluationReport, evaluate
from tests.support.patients import FEATURES, cohort, glm, release, score_counts

PATIENTS = 3_000
BY_SEX = Evaluation(subgroup=Grouping(feature="sex"))


def placed(family: Family = Family.LOGISTIC, **changes: Any) -> TrainGlm:
    task = with_edges(glm(family, **changes), FEATURES)
    assert isinstance(task, TrainGlm)
    return task


def known(figure: Figure) -> Estimate:
    assert isinstance(figure, Estimate)
    return figure


def ill_by_age(seed: int = 0) -> Any:
    people = cohort(PATIENTS, seed)
    chance = 1 / (1 + np.exp(-(people.columns["age"] - 50) / 10))
    drawn = np.random.default_rng(seed + 1).random(PATIENTS) < chance
    people.columns["ill"][:] = drawn
    return people


def opened(task: TrainGlm, people: Any, model: np.ndarray, std: int, seed: int = 2) -> np.ndarray:
    mechanism = release(task, "evaluate", noise_std=std)
    counts = score_counts(task, people, model).sum(axis=0)
    noise = np.random.default_rng(seed).normal(0, std * 2, len(counts))  # four countries
    found: np.ndarray = np.rint(counts * mechanism.scale + noise).astype(np.int64)
    return found


def report(task: TrainGlm, people: Any, model: np.ndarray, std: int = 200) -> EvaluationReport:
    return evaluate(
        task,
        FEATURES,
        release(task, "evaluate", noise_std=std),
        opened(task, people, model, std),
        countries=4,
    )


AGE_MODEL = np.array([0.0, 1.0, 0, 0, 0, 0, 0])


def test_a_good_model_has_good_figures_with_correct_intervals() -> None:
    everybody = report(placed(), ill_by_age(), AGE_MODEL).everybody
    assert everybody.patients is not None
    assert everybody.patients.low <= PATIENTS <= everybody.patients.high
    figures = everybody.figures
    assert set(figures) == {
        "accuracy",
        "auc",
        "calibration_in_the_large",
        "expected_calibration_error",
    }
    auc, accuracy = known(figures["auc"]), known(figures["accuracy"])
    assert 0.8 < auc.low < auc.value < auc.high < 0.95
    assert 0.7 < accuracy.low < accuracy.value < accuracy.high < 0.9
    large = known(figures["calibration_in_the_large"])
    assert large.low < 0.02
    assert large.high > -0.02


def test_a_model_that_knows_nothing_has_an_auc_of_one_half() -> None:
    model = np.array([0.0, 0, 0, 0, 0, 1.5, 0])  # by sugar, which says nothing here
    auc = known(report(placed(), ill_by_age(), model).everybody.figures["auc"])
    assert auc.low <= 0.5 <= auc.high


def test_equal_scores_are_too_coarse_for_an_auc() -> None:
    figures = report(placed(), ill_by_age(), np.zeros(7)).everybody.figures
    assert figures["auc"] is Unreleased.TOO_COARSE
    known(figures["accuracy"])


def test_subgroups_are_reported_beside_all_patients() -> None:
    found = report(placed(evaluation=BY_SEX), ill_by_age(), AGE_MODEL)
    assert [group.group for group in found.subgroups] == ["female", "male"]
    parts = [group.patients.value for group in found.subgroups if group.patients]
    assert found.everybody.patients is not None
    assert sum(parts) == pytest.approx(found.everybody.patients.value)
    for group in found.subgroups:
        assert group.figures["auc"] is not None


def test_a_small_group_is_suppressed_as_null() -> None:
    people = ill_by_age()
    people.columns["sex"][:] = 1.0  # no woman at all
    found = report(placed(evaluation=BY_SEX), people, AGE_MODEL, std=5)
    women = found.subgroups[0]
    assert women.patients is None
    assert set(women.figures.values()) == {None}
    group = json.loads(json.dumps(found.to_json()))["subgroups"][0]
    assert group["patients"] is None
    assert group["auc"] is None


def test_too_few_patients_of_one_label_suppress_only_the_auc() -> None:
    people = ill_by_age()
    people.columns["ill"][:] = 0.0
    figures = report(placed(), people, AGE_MODEL, std=5).everybody.figures
    assert figures["auc"] is None
    assert figures["accuracy"] is not None


def test_without_held_out_patients_every_figure_is_suppressed() -> None:
    everybody = report(placed(), cohort(0), AGE_MODEL, std=5).everybody
    assert everybody.patients is None
    assert set(everybody.figures.values()) == {None}


def test_several_levels_have_a_mean_auc_and_a_top_class_accuracy() -> None:
    task = placed(Family.MULTINOMIAL)
    people = cohort(PATIENTS)
    people.columns["stage"][:] = np.digitize(people.columns["age"], (43, 66))
    model = np.zeros((3, 7))
    model[0, 1], model[2, 1] = -2.0, 2.0
    model[1, 0] = 1.0
    figures = report(task, people, model.reshape(-1)).everybody.figures
    assert set(figures) == {"auc", "expected_calibration_error", "accuracy"}
    rows = task.rows(FEATURES, people.columns)
    top = task.predict(FEATURES, model.reshape(-1), rows).argmax(axis=1)
    plain = (top == people.columns["stage"]).mean()
    accuracy, auc = known(figures["accuracy"]), known(figures["auc"])
    assert accuracy.low <= plain <= accuracy.high
    assert auc.value > 0.75


def test_a_numeric_target_has_errors_instead_of_an_auc() -> None:
    task = placed(Family.LINEAR)
    people = cohort(PATIENTS)
    expected = 140 + (people.columns["age"] - 55)
    people.columns["pressure"][:] = expected + np.random.default_rng(0).normal(0, 6, PATIENTS)
    model = np.array([-5 / 60, 10 / 60, 0, 0, 0, 0, 0])
    figures = report(task, people, model).everybody.figures
    assert set(figures) == {"mean_absolute_error", "mean_residual", "variance_explained"}
    error = known(figures["mean_absolute_error"])
    assert error.low <= 6 * np.sqrt(2 / np.pi) / 120 <= error.high
    assert error.high - error.low < 0.01
    residual = known(figures["mean_residual"])
    assert residual.low <= 0.0 <= residual.high
    explained = known(figures["variance_explained"])
    assert 0.75 < explained.low < 0.91 < explained.high < 1.0


@pytest.mark.parametrize("family", list(Family))
def test_a_study_of_an_earlier_version_releases_what_its_counts_give(family: Family) -> None:
    task = glm(family)
    figures = report(task, ill_by_age(), np.zeros(task.dimension(FEATURES))).everybody.figures
    exact = {name for name, figure in figures.items() if isinstance(figure, Estimate)}
    assert exact == ({"accuracy"} if family is not Family.LINEAR else set())
    assert {figures[name] for name in set(figures) - exact} == {Unreleased.TOO_COARSE}


def test_too_few_patients_for_the_noise_are_too_noisy_and_not_zero() -> None:
    everybody = report(placed(), cohort(PATIENTS), AGE_MODEL, std=20_000).everybody
    if everybody.patients is not None:
        assert set(everybody.figures.values()) <= {Unreleased.TOO_NOISY, None}


def test_the_same_table_gives_the_same_report() -> None:
    people = ill_by_age()
    first, again = (report(placed(), people, AGE_MODEL).to_json() for _ in range(2))
    assert first == again
