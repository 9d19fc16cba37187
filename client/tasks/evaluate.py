"""The contribution of a held-out patient to evaluation, by score, label and subgroup."""

import numpy as np

from client.records.cohort import Cohort
from protocols.tasks import Family, Training
from protocols.tasks.error_table import ErrorTable
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray
from protocols.tasks.score_table import Contributions
from protocols.tasks.training import LINEAR_LABEL_BINS, one_hot


def evaluation_contributions(task: Training, cohort: Cohort, outputs: FloatArray) -> Contributions:
    """Return what each patient adds to the evaluation table of the task.

    `outputs` are the outputs of the model before the link function, (patients, classes).
    """
    predicted = task.predicted(cohort.features, outputs)
    table, groups = task.score_table(cohort.features), _groups(task, cohort)
    if isinstance(table, ErrorTable):
        errors, targets = _errors(task, cohort, predicted)
        return table.contributions(errors[:, 0], targets[:, 0], groups)
    scores, labels = _scored(task, cohort, predicted)
    return table.contributions(scores, labels, groups)


def _scored(task: Training, cohort: Cohort, predicted: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return scores in [0, 1] and label bins, both (patients, classes)."""
    target = task.target_feature(cohort.features)
    column = cohort.columns[target.name]
    if task.family is Family.LOGISTIC:
        return predicted, column[:, None].astype(np.int64)
    if task.family is Family.MULTINOMIAL:
        return predicted, one_hot(column, len(target.levels))
    errors, targets = _errors(task, cohort, predicted)
    bins = ((targets + 1) / 2 * LINEAR_LABEL_BINS).astype(np.int64)
    return np.clip(0.5 + errors, 0, 1), np.clip(bins, 0, LINEAR_LABEL_BINS - 1)


def _errors(task: Training, cohort: Cohort, predicted: FloatArray) -> tuple[FloatArray, FloatArray]:
    return task.errors(cohort.features, predicted, cohort.columns[task.target][:, None])


def _groups(task: Training, cohort: Cohort) -> IntArray:
    grouping = task.evaluation.subgroup if task.evaluation else None
    if grouping is None:
        return np.zeros(cohort.patients, dtype=np.int64)
    feature = next(f for f in cohort.features if f.name == grouping.feature)
    return grouping.cells(feature, cohort.columns[grouping.feature])
