"""Rounds patients' real vectors to integers of exactly bounded norm; draws secret samples.

Conditional rounding of Kairouz, Liu, Steinke 2021 (Section 4.1): clip, scale, round every
coordinate at random without bias, and draw again while the exact integer norm exceeds the bound
that the accountant uses. Nothing here raises, or takes notably longer, because of a value: a vector
that cannot be used contributes zero.

*The bound.* Let ‖x‖ ≤ L = C·s after clipping and scaling, and R be x rounded: |R_j| is
f_j = ⌊|x_j|⌋ or, with probability at most p_j = |x_j| - f_j and independently, f_j + 1. Then

1. always ‖R‖ ≤ L + √d: no coordinate changes by more than 1, so ‖R - x‖ ≤ √d;
2. with probability at least 1 - β, ‖R‖² ≤ L² + d/4 + √(2 ln(1/β))·(L + √d/2). For R_j² is f_j² or
   (f_j + 1)². Its mean is at most x_j² + p_j·(1 - p_j) ≤ x_j² + 1/4, and the mean of ‖R‖² at most
   L² + d/4. The two values differ by 2f_j + 1 ≤ 2|x_j| + 1, and the sum of the squared differences
   is at most (2‖x‖ + √d)² ≤ (2L + √d)² (Minkowski). So (Hoeffding 1963, Theorem 2) ‖R‖² exceeds
   its mean by t with probability at most exp(-2t²/(2L + √d)²), which is β at
   t = √(2 ln(1/β))·(L + √d/2).

Δ² is the smaller of the two, rounded down (at β = e^(-1/2) and d ≥ 1 that is always the second). So
a draw is within it with probability at least 1 - β = 0.39, and 64 draws in a row exceed it with
probability below e^(-32) < 2·10^-14.

*What privacy relies on.* Not on that probability: every draw's squared norm is computed in whole
numbers and compared with the whole number ⌊Δ²⌋. A larger one is drawn again, and after 64 draws the
patient contributes zero. So a patient's integers have a norm of at most Δ, whatever the records
hold and however floating point rounded the clipping. Each patient is rounded with fresh randomness
and independently of the others, so one patient more or less changes the sum by at most Δ. The cost
is a bias of at most β·√d/(1 - β) steps for a vector near the clip norm (Kairouz, Liu, Steinke 2021,
Section 4.1).
"""

import math
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism, Rounding

MAX_DRAWS = 64
"""After this number of draws a patient contributes zero."""
BLOCK_VALUES = 2**20
"""Patients are rounded in blocks of about this many coordinates, to bound memory."""
CACHED_VALUES = 2**16
"""Sparse vectors are rounded in blocks of about this many values, which a processor can cache."""
RANDOM_BITS = 64
EXACT_REACH = 2**31
"""Below this, a squared norm is exact in 64-bit integers; above, Python's integers are used."""
SLACK = 1e-9

Entropy = Callable[[int], bytes]
"""`entropy(n)` returns n bytes of the operating system's generator; tests pass their own."""


def round_contributions(
    vectors: NDArray[np.float64], mechanism: Mechanism, *, entropy: Entropy = os.urandom
) -> NDArray[np.int64]:
    """Return Σ over patients of their rounded vectors: (d,) int64 from `vectors` (n, d).

    A vector that is not finite contributes zero; one longer than the clip norm is shortened.
    """
    total = np.zeros(mechanism.dimension, np.int64)
    step = max(1, BLOCK_VALUES // mechanism.dimension)
    for start in range(0, len(vectors), step):
        total += round_each(vectors[start : start + step], mechanism, entropy=entropy).sum(axis=0)
    return total


def round_sparse(
    values: NDArray[np.float64],
    coordinates: NDArray[np.int64],
    mechanism: Mechanism,
    *,
    entropy: Entropy = os.urandom,
) -> NDArray[np.int64]:
    """Return what `round_contributions` does, for patients with few coordinates that are not zero.

    `values` (n, k) belong to `coordinates` (n, k). Zero rounds to zero, so the other coordinates
    need no randomness: the law of the sum is the same. That needs distinct coordinates: two values
    in one would add up to a norm that nobody checked. A patient with a repeated coordinate, or with
    one that the sum does not have, contributes zero.
    """
    total = np.zeros(mechanism.dimension, np.int64)
    step = max(1, CACHED_VALUES // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        # column by column in memory: rows are too short for quick sums over each
        block = np.asfortranarray(values[start : start + step])
        at = np.asfortranarray(coordinates[start : start + step])
        distinct = _distinct(at, mechanism.dimension)[:, None]
        rounded = round_each(np.where(distinct, block, 0.0), mechanism, entropy=entropy)
        np.add.at(total, np.where(distinct, at, 0).reshape(-1), rounded.reshape(-1))
    return total


def _distinct(coordinates: NDArray[np.int64], dimension: int) -> NDArray[np.bool_]:
    ordered = np.sort(coordinates, axis=1)
    within = (ordered[:, :1] >= 0).all(axis=1) & (ordered[:, -1:] < dimension).all(axis=1)
    return np.asarray(within & (ordered[:, 1:] != ordered[:, :-1]).all(axis=1), np.bool_)


def round_each(
    vectors: NDArray[np.float64], mechanism: Mechanism, *, entropy: Entropy = os.urandom
) -> NDArray[np.int64]:
    """Return every patient's integers, (n, d); no squared norm exceeds the mechanism's bound."""
    if mechanism.rounding is Rounding.INTEGER:
        return _scale_integers(vectors, mechanism)
    scaled = _clip(vectors, mechanism.clip_norm) * mechanism.scale
    rounded = np.zeros(scaled.shape, np.int64)
    pending = np.arange(len(scaled))
    for _ in range(MAX_DRAWS):
        drawn = _round_at_random(scaled[pending], entropy)
        good = _within(drawn, mechanism)
        rounded[pending[good]] = drawn[good]
        pending = pending[~good]
        if not pending.size:
            break
    return rounded


def poisson_sample(size: int, rate: float, *, entropy: Entropy = os.urandom) -> NDArray[np.bool_]:
    """Return which of `size` patients are in the sample, each by itself with probability `rate`.

    The probability is exact to 2^-64, and never above the rate. The sample may be empty.
    """
    if rate >= 1:
        return np.ones(size, np.bool_)
    return _random_words(size, entropy) < np.uint64(math.floor(rate * 2**RANDOM_BITS))


def _clip(vectors: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    finite = np.isfinite(vectors).all(axis=1, keepdims=True)
    usable = np.where(finite, vectors, 0.0)
    # Divide first, so that no finite vector overflows: not even a warning may depend on a record.
    largest = np.abs(usable).max(axis=1, keepdims=True, initial=1.0)
    direction = usable / largest
    norms = np.linalg.norm(direction, axis=1, keepdims=True)
    allowed = clip_norm / largest
    return np.where(norms > allowed, direction * (clip_norm / np.maximum(norms, allowed)), usable)


def _round_at_random(scaled: NDArray[np.float64], entropy: Entropy) -> NDArray[np.int64]:
    # Truncation towards zero leaves an exact fraction in floating point. Rounding down does not:
    # -1e-20 would have the fraction 1.
    inner = np.trunc(scaled)
    chance = (np.abs(scaled - inner) * 2.0**RANDOM_BITS).astype(np.uint64)
    outward = _random_words(scaled.size, entropy).reshape(scaled.shape) < chance
    return inner.astype(np.int64) + np.sign(scaled).astype(np.int64) * outward


def _within(integers: NDArray[np.int64], mechanism: Mechanism) -> NDArray[np.bool_]:
    reach = mechanism.clip_norm * mechanism.scale + math.sqrt(mechanism.dimension)
    exact = integers if reach < EXACT_REACH else integers.astype(object)
    squares = (exact * exact).sum(axis=1)
    return np.asarray(squares <= mechanism.squared_sensitivity, np.bool_)


def _scale_integers(vectors: NDArray[np.float64], mechanism: Mechanism) -> NDArray[np.int64]:
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    whole = (vectors == np.rint(vectors)).all(axis=1, keepdims=True)
    usable = np.where(whole & (largest <= mechanism.clip_norm), vectors, 0.0)
    # This only keeps the exact check within 64 bits; that check decides.
    near = np.linalg.norm(usable, axis=1, keepdims=True) <= mechanism.clip_norm * (1 + SLACK)
    integers = np.where(near, usable, 0.0).astype(np.int64) * mechanism.scale
    return np.where(_within(integers, mechanism)[:, None], integers, 0)


def _random_words(size: int, entropy: Entropy) -> NDArray[np.uint64]:
    return np.frombuffer(entropy(8 * size), np.uint64)
