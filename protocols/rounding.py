"""Patients' real vectors become integers whose norm is bounded exactly; secret sampling."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protocols.mechanism import Mechanism

Entropy = Callable[[int], bytes]


def round_contributions(
    vectors: NDArray[np.float64], mechanism: Mechanism, *, entropy: Entropy
) -> NDArray[np.int64]:
    """Return Σ over patients of their rounded vectors, (d,) int64, from `vectors` (n, d)."""
    raise NotImplementedError


def poisson_sample(size: int, rate: float, *, entropy: Entropy) -> NDArray[np.bool_]:
    """Return which of `size` patients are in the sample, each with chance `rate`."""
    raise NotImplementedError
