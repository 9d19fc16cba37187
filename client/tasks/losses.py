"""Targets, and the derivative of the loss by a model's outputs, for every training task.

With the canonical link of its family, each loss has the same derivative by the outputs: prediction
minus target.
"""

from collections.abc import Sequence

import numpy as np

from protocols.tasks import Family, Feature, Training
from protocols.tasks.features import Columns, FloatArray
from protocols.tasks.training import one_hot, sigmoid, softmax


def targets(task: Training, features: Sequence[Feature], columns: Columns) -> FloatArray:
    """Return targets (patients, classes): 0/1, one-hot, or the encoded number."""
    target = task.target_feature(features)
    column = columns[target.name]
    if task.family is Family.MULTINOMIAL:
        return one_hot(column, len(target.levels)).astype(np.float64)
    return column[:, None] if task.family is Family.LOGISTIC else target.scaled(column)[:, None]


def residuals(family: Family, outputs: FloatArray, target: FloatArray) -> FloatArray:
    """Return prediction minus target, (patients, classes)."""
    return np.asarray(_mean(family, outputs) - target, dtype=np.float64)


def _mean(family: Family, outputs: FloatArray) -> FloatArray:
    if family is Family.LINEAR:
        return outputs
    if family is Family.MULTINOMIAL:
        return softmax(outputs)
    return sigmoid(outputs)
