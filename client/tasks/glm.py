"""What a patient contributes to `train/glm`: the gradient of the loss at the given model.

For all three families the gradient is the residual (prediction minus target) times the encoded
row. The penalty is public and is added by the server.
"""

import numpy as np

from protocols.tasks.features import Columns, Feature, FloatArray
from protocols.tasks.glm import Family, TrainGlm, one_hot, sigmoid, softmax


def targets(task: TrainGlm, features: tuple[Feature, ...], columns: Columns) -> FloatArray:
    """Return targets (patients, classes): 0/1, one-hot, or the encoded number."""
    target = task.target_feature(features)
    column = columns[target.name]
    if task.family is Family.MULTINOMIAL:
        return one_hot(column, len(target.levels)).astype(np.float64)
    return column[:, None] if task.family is Family.LOGISTIC else target.scaled(column)[:, None]


def gradients(
    family: Family, model: FloatArray, rows: FloatArray, target: FloatArray
) -> FloatArray:
    """Return one gradient per patient, float64 (patients, classes·coordinates)."""
    linear = rows @ model.reshape(target.shape[1], -1).T
    residual = _mean(family, linear) - target
    return (residual[:, :, None] * rows[:, None, :]).reshape(len(rows), model.size)


def _mean(family: Family, linear: FloatArray) -> FloatArray:
    if family is Family.LINEAR:
        return linear
    if family is Family.MULTINOMIAL:
        return softmax(linear)
    return sigmoid(linear)
