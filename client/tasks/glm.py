"""The contribution of a patient to `train/glm`: the gradient of the loss at the given model.

For all three families it is the residual (prediction minus target) times the encoded row. The
penalty is public, and the server adds it.
"""

import numpy as np

from client.tasks.losses import residuals
from protocols.numerics.rowwise_products import row_products
from protocols.tasks import Family
from protocols.tasks.features import FloatArray


def gradients(
    family: Family, model: FloatArray, rows: FloatArray, target: FloatArray
) -> FloatArray:
    """Return one gradient per patient, float64 (patients, classes·coordinates)."""
    linear = row_products(rows, model.reshape(target.shape[1], -1).T)
    residual = residuals(family, linear, target)
    return np.asarray(
        (residual[:, :, None] * rows[:, None, :]).reshape(len(rows), model.size), dtype=np.float64
    )
