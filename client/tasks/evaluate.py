"""The contribution of a held-out patient to evaluation: a count by score, label and subgroup."""

import numpy as np

from client.records.cohort import Cohort
from protocols.tasks import Family, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray
from protocols.tasks.training import one_hot


def evaluation_counts(task: Training, cohort: Cohort, outputs: FloatArray) -> FloatArray:
    """Return 0/1 vectors (patients, cells) for the score table of the task.

    `outputs` are the outputs of the model before the link function, (patients, classes).
    """
    predicted = task.predicted(cohort.features, outputs)
    scores, labels = _scored(task, cohort, predicted)
    table = task.score_table(cohort.features)
    return table.contributions(scores, labels, _groups(task, cohort))


def _scored(task: Training, cohort: Cohort, predicted: FloatArray) -> tuple[FloatArray, IntArray]:
    target = task.target_feature(cohort.features)
    column = cohort.columns[target.name]
    if task.family is Family.LOGISTIC:
        return predicted, column[:, None].astype(np.int64)
    if task.family is Family.MULTINOMIAL:
        return predicted, one_hot(column, len(target.levels))
    return task.residual_scores(cohort.features, predicted, column[:, None])


def _groups(task: Training, cohort: Cohort) -> IntArray:
    grouping = task.evaluation.subgroup if task.evaluation else None
    if grouping is None:
        return np.zeros(cohort.patients, dtype=np.int64)
    feature = next(f for f in cohort.features if f.name == grouping.feature)
    return grouping.cells(feature, cohort.columns[grouping.feature])
