"""Exact noise for integer sums, from the operating system's generator."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import opendp.prelude as dp
from numpy.typing import NDArray

# The constructor needs OpenDP's consent to its contributed parts; it applies to the process.
dp.enable_features("contrib")

PIECE = 2**15
"""Draws that one thread makes at a time; the sampler runs outside Python's lock."""
MOST_THREADS = 4


class NoiseSource(Protocol):
    """Where a door gets a country's noise share."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` independent draws of discrete Gaussian parameter σ = `std`, int64."""
        ...


class DiscreteGaussian:
    """The exact discrete Gaussian of Canonne, Kamath, Steinke 2020, as OpenDP samples it."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` independent draws with chances proportional to exp(-v²/(2·std²))."""
        pieces = [min(PIECE, size - start) for start in range(0, size, PIECE)]
        if len(pieces) <= 1:
            return _draw(std, size)
        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads:
            return np.concatenate(list(threads.map(lambda piece: _draw(std, piece), pieces)))


def _draw(std: int, size: int) -> NDArray[np.int64]:
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    sample = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=float(std))
    return np.array(sample([0] * size), np.int64)
