"""Exact noise for integer sums, from the operating system's generator."""

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.discrete_gaussian import Sampler


class NoiseSource(Protocol):
    """The source from which the door draws a country's noise share."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` independent draws of discrete Gaussian parameter σ = `std`, int64."""
        ...


class DiscreteGaussian:
    """The exact discrete Gaussian of Canonne, Kamath, Steinke 2020."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` independent draws with probabilities proportional to exp(-v²/(2·std²))."""
        return Sampler(os.urandom).draw(std, size)
