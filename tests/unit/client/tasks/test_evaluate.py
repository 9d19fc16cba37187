import numpy as np
import pytest

from protocols.tasks import Family
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.layout import Grouping
from tests.support.patients import FEATURES, cohort, glm, score_counts

BY_AGE = Evaluation(subgroup=Grouping(feature="age", edges=(50,)))


@pytest.mark.parametrize("family", list(Family))
def test_every_patient_is_counted_as_often_as_the_norm_says(family: Family) -> None:
    task, people = glm(family, evaluation=BY_AGE), cohort(40)
    model = np.random.default_rng(0).normal(size=task.dimension(FEATURES))
    counts = score_counts(task, people, model)
    table = task.score_table(FEATURES)
    assert counts.shape == (40, table.dimension)
    assert set(np.unique(counts)) == {0.0, 1.0}
    assert (counts.sum(axis=1) == table.ones).all()


def test_cells_hold_score_label_and_subgroup() -> None:
    task, people = glm(evaluation=BY_AGE), cohort(200)
    model = np.array([0.0, 2.0, 0, 0, 0, 0, 0])
    table = task.score_table(FEATURES)
    cells = table.scores_by_cell(score_counts(task, people, model).sum(axis=0))[0]
    old = people.columns["age"] >= 50
    ill = people.columns["ill"] == 1
    assert cells[1].sum() == old.sum()
    assert cells[1, :, 1].sum() == (old & ill).sum()
    # the score of this model is above one half exactly for those of fifty and more
    assert cells[1, :5].sum() == 0
    assert cells[0, 5:].sum() == 0


def test_without_subgroup_everybody_is_one_group() -> None:
    task = glm()
    counts = score_counts(task, cohort(10), np.zeros(7))
    assert task.score_table(FEATURES).scores_by_cell(counts.sum(axis=0)).sum() == 10


def test_without_held_out_patients_the_table_is_all_zeros() -> None:
    assert score_counts(glm(), cohort(0), np.zeros(7)).shape == (0, 20)


def test_a_perfect_linear_model_has_all_residuals_in_the_middle() -> None:
    task, people = glm(Family.LINEAR), cohort(30)
    people.columns["pressure"][:] = 140.0
    cells = task.score_table(FEATURES).scores_by_cell(
        score_counts(task, people, np.zeros(7)).sum(axis=0)
    )
    assert cells[0, 0, 5, 5] == 30
