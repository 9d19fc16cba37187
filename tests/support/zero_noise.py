"""The zero noise source. It exists here only; nothing that is installed can select it."""

import numpy as np
from numpy.typing import NDArray


class ZeroNoise:
    """A noise source that returns zeros."""

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return zeros."""
        return np.zeros(size, np.int64)


class CountedZeroNoise(ZeroNoise):
    """A zero noise source that counts its draws."""

    def __init__(self) -> None:
        self.draws = 0

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        self.draws += 1
        return super().draw(std, size)
