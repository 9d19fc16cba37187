"""What a patient contributes to `train/mlp`: the factors of each layer's gradient.

One pass forward and one back, for many patients at once, as for a plain step of gradient descent;
no gradient of a single patient is ever formed. Nothing here needs torch.
"""

from collections.abc import Sequence

import numpy as np

from client.tasks.losses import residuals
from protocols.factors import Factors
from protocols.separate import row_products
from protocols.tasks import Family
from protocols.tasks.features import FloatArray

Layers = Sequence[tuple[FloatArray, FloatArray]]
"""Weights (leaving, entering) and biases (leaving,) of each layer."""


def factors(family: Family, layers: Layers, rows: FloatArray, target: FloatArray) -> list[Factors]:
    """Return each layer's factors at these weights, first layer first.

    `rows` is (patients, coordinates), `target` (patients, classes).
    """
    entered = _forward(layers, rows)
    weights, biases = layers[-1]
    returned = [residuals(family, row_products(entered[-1], weights.T) + biases, target)]
    for (inner, _), active in zip(layers[:0:-1], entered[:0:-1], strict=True):
        returned.append(row_products(returned[-1], inner) * (active > 0))
    return [Factors(a, d) for a, d in zip(entered, reversed(returned), strict=True)]


def _forward(layers: Layers, rows: FloatArray) -> list[FloatArray]:
    """Return what enters each layer."""
    entered = [rows]
    for weights, biases in layers[:-1]:
        given = row_products(entered[-1], weights.T) + biases
        entered.append(np.maximum(given, 0.0, out=given))
    return entered
