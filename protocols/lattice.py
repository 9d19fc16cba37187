"""Integers in lanes of 64-bit words: packed before masking, summed as whole words."""

import numpy as np
from numpy.typing import NDArray


def pack(values: NDArray[np.int64], lane_bits: int) -> NDArray[np.uint64]:
    """Return the words that hold `values` (m,) in lanes of 21, 32 or 64 bits."""
    raise NotImplementedError


def unpack(words: NDArray[np.uint64], lane_bits: int) -> NDArray[np.int64]:
    """Return the integers, padding zeros included, of a sum of packed words."""
    raise NotImplementedError
