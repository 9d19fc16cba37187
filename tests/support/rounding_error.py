"""Bound the errors of a perceptron's factors that are computed on grids.

A running error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition 2002,
Section 3.3): each bound is computed from the numbers that the computation met, layer by layer.
Write W, b for a layer's exact weights and biases, a for what enters it, δ for what comes back to
it, and w̃, ã, δ̃ for the same as computed. K is the longer side of W, p = ⌊(53 − ⌈log2 K⌉)/2⌋.

1. *A step.* The largest entry of a row lies between 2^(e−1) and 2^e, steps are 2^(e−p), and the
   nearest multiple is half a step away at most: 2^(e−p−1) ≤ 2^-p·max|row|. It holds with the
   rounded row's largest entry too, as 2^(e−1) is itself a multiple. The same holds for a matrix.
2. *Forward.* With |ã − a| ≤ E: the products are exact, so the error of a layer's output is at most
   E·|W|ᵀ + 2^-p·max|W|·Σ|ã|, and one rounding of float64 for the addition of the bias. A rectifier
   increases no distance; the grid of the next layer adds its step.
3. *Residuals.* The mean changes by at most 1 (linear), 1/4 (logistic) and 1/2 (multinomial, in the
   largest entry) times what the last layer's outputs change.
4. *Backward.* With |δ̃ − δ| ≤ D: D·|W| + 2^-p·max|W|·Σ|δ̃|, and a step. If a unit's exact value may
   be on the other side of zero, all that comes back through it may be wrong: |δ̃|·|W| more.
5. *A gradient.* |δ̃·ã − δ·a| ≤ |δ̃|·E + D·(|ã| + E), entry by entry.

Errors are relative to the terms of a sum, not to the sum itself: if a residual is a thousandth of
the two values whose difference it is, its relative error is a thousand times larger. No constant
bounds the error of a norm relative to the norm.

A reference in float64 has an error of about K·2^-53 of the same sums of products, at most a
thousandth of the steps if K is at most 64: `SLACK` allows for it.
"""

from collections.abc import Sequence

import numpy as np

from client.tasks.mlp import Layers
from protocols.numerics.factored_rounding import Factors
from protocols.numerics.rowwise_products import REACH, grid_bits
from protocols.tasks import Family
from protocols.tasks.features import FloatArray

Errors = list[FloatArray]
STEEPEST = {Family.LINEAR: 1.0, Family.LOGISTIC: 0.25, Family.MULTINOMIAL: 0.5}
FLOAT = 2.0**-50
"""Eight roundings of float64."""
SLACK = 1.001


def gradient_error(family: Family, layers: Layers, factors: Sequence[Factors]) -> FloatArray:
    """Return a bound on the error of each entry of each patient's gradient.

    The order is that of a model: layer by layer, weights row by row and then biases.
    """
    input_errors, output_errors = _forward(layers, factors)
    returned = _backward(family, layers, factors, output_errors)
    parts = []
    for layer, input_error, returned_error in zip(factors, input_errors, returned, strict=True):
        sizes = np.abs(layer.returned)[:, :, None] * input_error[:, None, :]
        sizes += returned_error[:, :, None] * (np.abs(layer.entered) + input_error)[:, None, :]
        parts += [sizes.reshape(len(sizes), -1), returned_error]
    return SLACK * np.concatenate(parts, axis=1)


def _forward(layers: Layers, factors: Sequence[Factors]) -> tuple[Errors, Errors]:
    """Return bounds on the error of each layer's inputs, and of its outputs."""
    input_errors: Errors = [_step(factors[0].entered, layers[0])]
    output_errors: Errors = []
    for number, (weights, biases) in enumerate(layers):
        if number:
            input_errors.append(output_errors[-1] + _step(factors[number].entered, layers[number]))
        outputs = factors[number].entered @ weights.T + biases
        last_bits = FLOAT * (np.abs(outputs) + np.abs(biases))
        moved = _of_weights(factors[number].entered, weights)
        output_errors.append(input_errors[-1] @ np.abs(weights).T + moved + last_bits)
    return input_errors, output_errors


def _backward(
    family: Family, layers: Layers, factors: Sequence[Factors], output_errors: Errors
) -> Errors:
    """Return bounds on the error of what comes back to each layer."""
    last = factors[-1].returned
    error = STEEPEST[family] * output_errors[-1].max(axis=1, keepdims=True) + FLOAT * (
        1 + np.abs(last)
    )
    returned = [error + _step(last, layers[-1])]
    for number in range(len(layers) - 1, 0, -1):
        weights, back = np.abs(layers[number][0]), np.abs(factors[number].returned)
        error = returned[0] @ weights + _of_weights(back, weights)
        error += _in_doubt(layers, factors, output_errors, number) * (back @ weights)
        returned.insert(0, error + _step(factors[number - 1].returned, layers[number - 1]))
    return returned


def _in_doubt(
    layers: Layers, factors: Sequence[Factors], output_errors: Errors, number: int
) -> FloatArray:
    """Return 1 for each unit before a layer whose exact value may have another sign, else 0."""
    weights, biases = layers[number - 1]
    outputs = factors[number - 1].entered @ weights.T + biases
    reach = output_errors[number - 1] + _step(factors[number].entered, layers[number])
    return (np.abs(outputs) <= 2 * reach).astype(np.float64)


def _step(rows: FloatArray, layer: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Return how far each row's grid can move its entries, (patients, width)."""
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 2.0**-REACH)
    step = 2.0 ** -grid_bits(layer[0].shape) * largest
    return np.asarray(np.broadcast_to(step, rows.shape), dtype=np.float64)


def _of_weights(rows: FloatArray, weights: FloatArray) -> FloatArray:
    """Return how far the grid of the weights can move a product of rows, (patients, 1)."""
    step = 2.0 ** -grid_bits(weights.shape) * np.abs(weights).max()
    return np.asarray(step * np.abs(rows).sum(axis=1, keepdims=True), dtype=np.float64)
