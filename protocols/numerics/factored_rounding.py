"""Rounds outer products to integers by rounding their factors, with an exact bound on the norm.

In a linear layer with input a and derivative δ of the loss by the output, a patient's gradient is
δ·aᵀ for the weights and δ for the biases: one outer product if a 1 is appended to a. Rounding a and
δ at random, independently and without bias, rounds their product without bias (E[A·D] =
E[A]·E[D]). It needs n + m draws instead of n·m, and gives integers whose squared norm is Σ over
layers of |A|²·|D|².

*The bound.* Every patient's squared norm is computed from the integers themselves and compared
with Δ² = ⌊(C·s·(1 + η))²⌋, η = FACTOR_MARGIN. If it is larger, both factors are drawn again; after
MAX_DRAWS draws the patient contributes zero. All values are whole numbers. As Δ ≤ 2^25, a squared
norm within the bound is below 2^51 and exact in float64, and a sum above 2^53 exceeds the bound
however it is rounded. The bound relies on no closed form and on no property of a or δ.

*Exact sums.* No entry of one patient's product exceeds its norm, Δ, in absolute value. So sums over
up to 2^28 patients stay below 2^53, in whatever order a matrix product adds them. If patients·Δ ≤
2^24, single precision is exact too, and twice as fast: it would round a factor above Δ, but such a
factor is multiplied by zeros only.

*Independent of other patients, to the last bit.* The values before rounding are computed from one
patient's factors only, by IEEE 754 operations in a fixed order, except for the sums of squares. For
factors on a grid (`protocols.numerics.rowwise_products`) these sums are exact in any order. So,
given the same random words, one patient's integers do not depend on the other patients.

*How often a patient is drawn again.* Let G = s·c·|a|·|δ| be a layer's norm after clipping by c, and
x and y the factors before rounding, with |x|² = G·r, |y|² = G/r, r = √((n+e)/(m+e)), e = EVENING.
A fraction p adds p·(1−p) ≤ ¼ to a mean square, so E|A|² ≤ G·r + n/4, and
E|A|²·E|D|² ≤ (G + √((n+e)·(m+e))/4)². Over layers (Minkowski) the mean is at most (R + v)², with
R = C·s, v = √(Σ (n+e)·(m+e))/4. Var|A|² ≤ (|x| + √n/2)² ≤ 2·G·r + n/2, and with ρ the largest
r + 1/r the sum's variance is about 2·(R + v)³·ρ at most. `factored_scale` chooses R so large that
v ≤ η·R/2 and ρ ≤ η²·R: then even a patient at the clip norm passes with a probability of about a
third or more (Cantelli).

Source for drawing again under a bound: Kairouz, Liu, Steinke 2021, Section 4.1.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.keystream import Keystream
from protocols.numerics.mechanism import FACTOR_MARGIN, Mechanism
from protocols.numerics.rounding import MAX_DRAWS, Entropy

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Products = NDArray[np.float32] | NDArray[np.float64]
SINGLE_EXACT = 2**24
"""Whole numbers up to this are exact in single precision."""
EVENING = 64
"""Limits how different the norms of a layer's two factors become if their widths differ much."""


@dataclass(frozen=True)
class Factors:
    """The factors of each patient's gradient in one layer.

    `entered` (patients, n) is the layer's input, without the constant 1 for the biases; `returned`
    (patients, m) is the loss's derivative by the layer's output. The gradient of weight (j, k) is
    returned[:, j]·entered[:, k].
    """

    entered: Floats
    returned: Floats

    @property
    def entered_squares(self) -> Floats:
        """Squared norms of the inputs, the constant 1 included, (patients,)."""
        return 1.0 + _squares(self.entered)

    @property
    def returned_squares(self) -> Floats:
        """Squared norms of the derivatives, (patients,)."""
        return _squares(self.returned)


def squared_norms(layers: Sequence[Factors]) -> Floats:
    """Return each patient's squared gradient norm, (patients,) (Goodfellow 2015)."""
    return np.asarray(
        sum(layer.entered_squares * layer.returned_squares for layer in layers), dtype=np.float64
    )


def factored_scale(clip_norm: float, widths: Sequence[int]) -> int:
    """Return the scale s at which rounding lengthens a gradient by 1 % at most.

    For a very small clip norm it exceeds LARGEST_SCALE, which no mechanism accepts.
    """
    sides = [(entering + 1 + EVENING, leaving + EVENING) for entering, leaving in pairwise(widths)]
    spread = math.sqrt(sum(n * m for n, m in sides))
    evenness = max(math.sqrt(n / m) + math.sqrt(m / n) for n, m in sides)
    half = FACTOR_MARGIN / 2
    reach = max(spread / 4 / half, evenness / (2 * half) ** 2)
    return max(1, math.ceil(reach / clip_norm))


def factored_sum(
    layers: Sequence[Factors], mechanism: Mechanism, *, entropy: Entropy = os.urandom
) -> NDArray[np.int64]:
    """Return Σ over patients of their rounded gradients, int64 (dimension,).

    The order is layer by layer, weights row by row and then biases. A patient whose squared norm
    is not finite contributes zero.
    """
    rounded = round_factors(layers, mechanism, Keystream(entropy))
    total = np.empty(mechanism.dimension, np.int64)
    start = 0
    for layer in rounded:
        for part in layer.sums(mechanism):
            total[start : start + part.size] = part
            start += part.size
    return total


@dataclass(frozen=True)
class RoundedFactors:
    """A layer's factors as whole numbers in float64; `ones` (patients,) is the rounded 1."""

    entered: Floats
    ones: Floats
    returned: Floats

    @property
    def squares(self) -> Floats:
        """Squared norms of each patient's products, biases included; exact below 2^53."""
        entered = _squares(self.entered) + self.ones**2
        return np.asarray(entered * _squares(self.returned), dtype=np.float64)

    def sums(self, mechanism: Mechanism) -> tuple[Products, Products]:
        """Return the exact sums over patients, for the weights row by row and for the biases."""
        largest_square = len(self.ones) ** 2 * mechanism.squared_sensitivity
        kind = np.float32 if largest_square <= SINGLE_EXACT**2 else np.float64
        returned = self.returned.astype(kind, copy=False).T
        weights = returned @ self.entered.astype(kind, copy=False)
        return weights.reshape(-1), returned @ self.ones.astype(kind, copy=False)

    def replace(self, patients: Indices, drawn: "RoundedFactors") -> None:
        """Replace the integers of some patients."""
        self.entered[patients] = drawn.entered
        self.ones[patients] = drawn.ones
        self.returned[patients] = drawn.returned

    def clear(self, patients: Indices) -> None:
        """Set the integers of some patients to zero."""
        self.entered[patients] = self.returned[patients] = 0.0
        self.ones[patients] = 0.0


def round_factors(
    layers: Sequence[Factors], mechanism: Mechanism, words: Keystream
) -> list[RoundedFactors]:
    """Return every patient's integers; no squared norm exceeds the mechanism's bound."""
    scaled = _scaled(layers, mechanism)
    rounded = [_round(layer, words) for layer in scaled]
    beyond = np.flatnonzero(~_within(rounded, mechanism))
    for _ in range(MAX_DRAWS - 1):
        if not beyond.size:
            return rounded
        again = [_round(layer.of(beyond), words) for layer in scaled]
        for layer, redrawn in zip(rounded, again, strict=True):
            layer.replace(beyond, redrawn)
        beyond = beyond[~_within(again, mechanism)]
    for layer in rounded:
        layer.clear(beyond)
    return rounded


@dataclass(frozen=True)
class _Scaled:
    """A layer's factors in lattice units, before rounding; `ones` (patients,) is the scaled 1."""

    entered: Floats
    ones: Floats
    returned: Floats

    def of(self, patients: Indices) -> "_Scaled":
        return _Scaled(self.entered[patients], self.ones[patients], self.returned[patients])


def _scaled(layers: Sequence[Factors], mechanism: Mechanism) -> list[_Scaled]:
    entered = [layer.entered_squares for layer in layers]
    returned = [layer.returned_squares for layer in layers]
    norms = np.sqrt(sum(a * b for a, b in zip(entered, returned, strict=True)))
    usable = np.isfinite(norms)
    # A gradient longer than the clip norm is shortened to it; a shorter one is not lengthened.
    unit = mechanism.scale * np.where(usable, mechanism.clip_norm, 0.0)
    unit = unit / np.maximum(np.where(usable, norms, 1.0), mechanism.clip_norm)
    return [
        _balanced(layer, unit, np.where(usable, a, 1.0), np.where(usable, b, 0.0))
        for layer, a, b in zip(layers, entered, returned, strict=True)
    ]


def _balanced(
    layer: Factors, unit: Floats, entered_square: Floats, returned_square: Floats
) -> _Scaled:
    """Return the factors, scaled so that their product is `unit` times the gradient."""
    n, m = layer.entered.shape[1] + 1 + EVENING, layer.returned.shape[1] + EVENING
    entering = np.sqrt(unit * np.sqrt(returned_square / entered_square * (n / m)))
    present = entering > 0
    leaving = np.where(present, unit / np.where(present, entering, 1.0), 0.0)
    return _Scaled(_times(layer.entered, entering), entering, _times(layer.returned, leaving))


def _times(values: Floats, factors: Floats) -> Floats:
    """Return each row times its factor; zero if the factor is zero, even if the row is NaN."""
    product = np.multiply(values, factors[:, None], dtype=np.float64)
    product[factors == 0] = 0.0
    return np.asarray(product, dtype=np.float64)


def _round(layer: _Scaled, words: Keystream) -> RoundedFactors:
    return RoundedFactors(
        _round_at_random(layer.entered, words),
        _round_at_random(layer.ones, words),
        _round_at_random(layer.returned, words),
    )


def _round_at_random(values: Floats, words: Keystream) -> Floats:
    """Round up or down at random, with a bias below 2^-32 of a unit."""
    shifted = words.fractions(values.size).reshape(values.shape)
    shifted += values
    return np.floor(shifted, out=shifted)


def _within(rounded: Sequence[RoundedFactors], mechanism: Mechanism) -> NDArray[np.bool_]:
    squares = sum(layer.squares for layer in rounded)
    return np.asarray(squares <= mechanism.squared_sensitivity, np.bool_)


def _squares(rows: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", rows, rows), dtype=np.float64)
