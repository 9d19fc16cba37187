import numpy as np
import pytest

from protocols.tasks import Family, TrainGlm
from protocols.tasks.bin_edges import with_edges
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.layout import Grouping
from protocols.tasks.score_table import ScoreTable
from tests.support.patients import FEATURES, cohort, glm, score_counts

BY_AGE = Evaluation(subgroup=Grouping(feature="age", edges=(50,)))
MODEL = np.array([0.0, 2.0, 0, 0, 0, 0, 0])


def placed(task: TrainGlm) -> TrainGlm:
    with_them = with_edges(task, FEATURES)
    assert isinstance(with_them, TrainGlm)
    return with_them


def scores_of(task: TrainGlm) -> ScoreTable:
    table = task.score_table(FEATURES)
    assert isinstance(table, ScoreTable)
    return table


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("declared", [False, True], ids=["earlier version", "edges"])
def test_no_patient_s_vector_is_longer_than_the_norm_says(family: Family, declared: bool) -> None:
    task, people = glm(family, evaluation=BY_AGE), cohort(400)
    task = placed(task) if declared else task
    model = np.random.default_rng(0).normal(size=task.dimension(FEATURES))
    vectors = score_counts(task, people, model)
    table = task.score_table(FEATURES)
    assert vectors.shape == (400, table.dimension)
    assert (np.square(vectors).sum(axis=1) <= table.squared_norm * (1 + 1e-12)).all()


@pytest.mark.parametrize("task", [glm(evaluation=BY_AGE), placed(glm(evaluation=BY_AGE))])
def test_cells_hold_score_label_and_subgroup(task: TrainGlm) -> None:
    people = cohort(200)
    cells = scores_of(task).counts_of(score_counts(task, people, MODEL).sum(axis=0))[0]
    old = people.columns["age"] >= 50
    ill = people.columns["ill"] == 1
    assert cells[1].sum() == old.sum()
    assert cells[1, :, 1].sum() == (old & ill).sum()
    # the score of this model is above one half exactly for those of fifty and more
    assert cells[1, :5].sum() == 0
    assert cells[0, 5:].sum() == 0


def test_the_places_give_the_exact_sum_of_the_scores() -> None:
    task, people = placed(glm()), cohort(300)
    table, vector = scores_of(task), score_counts(task, people, MODEL).sum(axis=0)
    counts, places = table.counts_of(vector)[0, 0], table.places_of(vector)[0, 0]
    total = (table.middles * counts.sum(axis=1) + table.half_widths * places.sum(axis=1)).sum()
    scores = task.predict(FEATURES, MODEL, task.rows(FEATURES, people.columns))
    assert total == pytest.approx(scores.sum())


def test_without_subgroup_everybody_is_one_group() -> None:
    task = glm()
    counts = score_counts(task, cohort(10), np.zeros(7))
    assert scores_of(task).counts_of(counts.sum(axis=0)).sum() == 10


def test_without_held_out_patients_there_are_no_contributions() -> None:
    assert score_counts(glm(), cohort(0), np.zeros(7)).shape == (0, 20)


def test_a_perfect_linear_model_of_an_earlier_study_has_all_residuals_in_the_middle() -> None:
    task, people = glm(Family.LINEAR), cohort(30)
    people.columns["pressure"][:] = 140.0
    counts = score_counts(task, people, np.zeros(7)).sum(axis=0)
    assert scores_of(task).counts_of(counts)[0, 0, 5, 5] == 30


def test_a_score_that_is_not_a_number_is_one_that_rounding_leaves_out() -> None:
    task, people = placed(glm()), cohort(3)
    vectors = score_counts(task, people, np.full(7, np.nan))
    assert np.isnan(vectors).any(axis=1).all()
