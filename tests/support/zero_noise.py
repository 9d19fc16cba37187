"""The zero noise source. It exists here only; nothing that is installed can select it."""

import numpy as np
from numpy.typing import NDArray


class ZeroNoise:
    """Noise that is no noise."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return zeros."""
        return np.zeros(size, np.int64)


class CountedZeroNoise(ZeroNoise):
    """Knows how often it was asked for."""

    def __init__(self) -> None:
        self.draws = 0

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        self.draws += 1
        return super().draw(std, size)
