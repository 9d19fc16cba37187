"""Products of patients' rows with a matrix, in which no patient's result depends on another's.

The order in which a matrix product adds depends on how many rows there are and where each stands.
With weights chosen to cancel, that order is the whole result: a coordinator's model could let one
patient who comes or goes change what others contribute, beyond the bound of the accountant.
"""

import numpy as np

from protocols.tasks.features import FloatArray


def row_products(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """Return rows @ matrix, (patients, leaving): the same call for each row by itself."""
    return np.asarray(np.matmul(rows[:, None, :], matrix)[:, 0, :], dtype=np.float64)
