"""The parts of a model vector: names, shapes, and the public values that training starts from.

Initial weights are expanded from a seed in the study, with SHAKE-256 and arithmetic that IEEE 754
rounds in the same way on every machine. So every party computes the same initial model.
"""

import hashlib
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from keys.derive import frame
from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import MAX_COORDINATES
from protocols.tasks.features import FloatArray

SEED_LABEL = b"pratique/initial-weights/v1"
WORD_BYTES, MANTISSA_BITS = 8, 53
Side = Annotated[int, Field(ge=1, le=MAX_COORDINATES)]


class Initial(StrEnum):
    """What a tensor holds before the first round."""

    ZEROS = "zeros"
    ONES = "ones"
    UNIFORM = "uniform"
    """Uniform with variance 1/fan-in (LeCun et al. 1998, Section 4.6)."""


class Tensor(BaseModel):
    """One part of a model vector, row by row. Only `uniform` tensors are penalised weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]{0,127}$")]
    shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=4)]
    initial: Initial = Initial.UNIFORM

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    @property
    def reach(self) -> float:
        """Largest absolute value of an initial weight: √(3/fan-in)."""
        return math.sqrt(3 / max(1, math.prod(self.shape[1:])))

    def start(self, seed: int) -> FloatArray:
        """Return the values before the first round, flat."""
        if self.initial is Initial.UNIFORM:
            return self.reach * _between_minus_one_and_one(seed, self.name, self.size)
        return np.full(self.size, float(self.initial is Initial.ONES))


def start_vector(tensors: Sequence[Tensor], seed: int) -> FloatArray:
    """Return the model vector that training starts from."""
    return np.concatenate([tensor.start(seed) for tensor in tensors])


def split(vector: FloatArray, tensors: Sequence[Tensor]) -> dict[str, FloatArray]:
    """Return the parts of a model vector by name, in their shapes; views, not copies."""
    ends = np.cumsum([tensor.size for tensor in tensors])[:-1]
    parts = np.split(vector, ends)
    return {
        tensor.name: part.reshape(tensor.shape) for tensor, part in zip(tensors, parts, strict=True)
    }


def penalised(vector: FloatArray, tensors: Sequence[Tensor]) -> FloatArray:
    """Return a copy of a model vector with zero for everything that is not a weight."""
    weights = vector.copy()
    parts = split(weights, tensors)
    for tensor in tensors:
        if tensor.initial is not Initial.UNIFORM:
            parts[tensor.name][...] = 0.0
    return weights


def check_names(tensors: Sequence[Tensor]) -> None:
    """Raise ProtocolFault if two parts of a model have the same name."""
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ProtocolFault(
            "Two parts of the model have the same name",
            why="a released model is read by the names of its parts",
            fix="rename one of them",
        )


def _between_minus_one_and_one(seed: int, name: str, size: int) -> FloatArray:
    key = frame(SEED_LABEL, seed.to_bytes(WORD_BYTES, "big"), name.encode())
    data = hashlib.shake_256(key).digest(WORD_BYTES * size)
    words = np.frombuffer(data, "<u8") >> np.uint64(2 * 32 - MANTISSA_BITS)
    return np.asarray(words * 2.0 ** (1 - MANTISSA_BITS) - 1.0, dtype=np.float64)
