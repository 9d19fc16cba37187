"""The contribution of a patient to `train/mlp`: the factors of each layer's gradient.

There is one forward and one backward pass for many patients at once, as in ordinary gradient
descent. The gradient of a single patient is never formed, and torch is not needed. The inputs of a
layer's weights, in both directions, are on the grid of that layer. So each patient's factors depend
only on that patient and the model, and the sums of their squares are exact
(`protocols.numerics.rowwise_products`).

*Accuracy.* A grid moves what it rounds by at most 2^-p of the largest entry, p = 18 to 26, so a
layer's sums are as accurate as single precision: their error is about 2^-p of the sizes that were
added, not of the result. A residual that is a thousandth of the terms of its sum has a thousand
times the relative error, and so has the gradient. For ordinary models this is far below the 1 % of
the clip norm that rounding to integers may add (`protocols.numerics.factored_rounding`). No bound
on a patient's integers relies on it: their norm is computed from the integers. (The bound for a
given model and patient follows Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition
2002, Section 3.3; the tests derive it.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from client.tasks.losses import residuals
from protocols.numerics.factored_rounding import Factors
from protocols.numerics.rowwise_products import (
    grid_bits,
    grid_product,
    matrix_on_grid,
    rows_on_grid,
)
from protocols.tasks import Family
from protocols.tasks.features import FloatArray

Layers = Sequence[tuple[FloatArray, FloatArray]]
"""Weights (outputs, inputs) and biases (outputs,) of each layer."""


def factors(family: Family, layers: Layers, rows: FloatArray, target: FloatArray) -> list[Factors]:
    """Return the gradient factors of each layer at these weights, first layer first.

    `rows` is (patients, coordinates), `target` (patients, classes).
    """
    on_grid = [_Layer.of(*layer) for layer in layers]
    *inner, last = on_grid
    inputs = [rows_on_grid(rows, on_grid[0].bits)]
    for layer, after in zip(inner, on_grid[1:], strict=True):
        outputs = layer.forward(inputs[-1])
        inputs.append(rows_on_grid(np.maximum(outputs, 0.0, out=outputs), after.bits))
    deltas = [rows_on_grid(residuals(family, last.forward(inputs[-1]), target), last.bits)]
    for layer, before, active in zip(on_grid[:0:-1], inner[::-1], inputs[:0:-1], strict=True):
        delta = grid_product(deltas[-1], layer.weights)
        delta *= active > 0
        deltas.append(rows_on_grid(delta, before.bits))
    return [Factors(a, d) for a, d in zip(inputs, reversed(deltas), strict=True)]


@dataclass(frozen=True)
class _Layer:
    """A layer with its weights on their grid; `bits` is the precision of its inputs' grids."""

    weights: FloatArray
    biases: FloatArray
    bits: int

    @classmethod
    def of(cls, weights: FloatArray, biases: FloatArray) -> Self:
        bits = grid_bits(weights.shape)
        return cls(matrix_on_grid(weights, bits), biases, bits)

    def forward(self, inputs: FloatArray) -> FloatArray:
        """Return the outputs of the layer, (patients, outputs), for inputs on its grid."""
        outputs = grid_product(inputs, self.weights.T)
        outputs += self.biases
        return outputs
