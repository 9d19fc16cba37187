"""Exact noise for integer sums, from the operating system's generator."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class NoiseSource(Protocol):
    """Where a door gets a country's noise share."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` independent draws whose standard deviation is `std` lattice units."""
        ...


class DiscreteGaussian:
    """The exact discrete Gaussian of Canonne, Kamath, Steinke 2020."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` independent draws of the discrete Gaussian of parameter σ = `std`."""
        raise NotImplementedError
