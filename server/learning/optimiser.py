"""Gradient descent on opened sums, with public constants only.

One step divides the opened lattice sum by scale · q · patients. Countries receive `position`
(Nesterov's look-ahead point). The released model is the mean of the last iterates, which costs no
privacy and reduces the noise (Polyak, Juditsky 1992).

In local mode the opened sum is a sum of updates, and the mean update of the countries that took
part replaces the gradient (Reddi et al. 2021, Algorithm 1). The iterate is then the mean of their
local models, whose steps already include the penalty.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import Feature, FloatArray
from protocols.tasks.layout import FLOAT_BYTES, vector_from_bytes, vector_to_bytes
from protocols.tasks.training import Training

HEADER = struct.Struct("<QQQ")


@dataclass(frozen=True)
class OptimiserState:
    """The state between two steps; nothing in it is derived from one country alone.

    `round_number` counts the finished rounds, including void ones; `position` is the next model
    for the countries; `total` is the sum of `averaged` iterates, whose mean is released.
    """

    round_number: int
    position: FloatArray
    iterate: FloatArray
    total: FloatArray
    averaged: int

    @classmethod
    def start(cls, initial: FloatArray) -> Self:
        """Return the state before the first round, with the task's public initial model."""
        return cls(0, initial, initial, np.zeros(len(initial)), 0)

    def to_bytes(self) -> bytes:
        """Return the state as bytes, for the coordinator's database."""
        head = HEADER.pack(self.round_number, self.averaged, len(self.iterate))
        return head + b"".join(map(vector_to_bytes, (self.position, self.iterate, self.total)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote. Raises ProtocolFault for anything else."""
        if len(data) < HEADER.size:
            raise ProtocolFault("The stored optimiser state is too short")
        rounds, averaged, dimension = HEADER.unpack_from(data)
        if len(data) != HEADER.size + 3 * FLOAT_BYTES * dimension:
            raise ProtocolFault(
                "The stored optimiser state has a size that does not match its header"
            )
        vectors = vector_from_bytes(data[HEADER.size :], 3 * dimension).reshape(3, dimension)
        return cls(rounds, vectors[0], vectors[1], vectors[2], averaged)

    @property
    def payload(self) -> bytes:
        """The model that countries receive in the next round."""
        return vector_to_bytes(self.position)

    @property
    def model(self) -> FloatArray:
        """The model to release: the mean of the averaged iterates, or the last iterate if none."""
        return self.total / self.averaged if self.averaged else self.iterate


def step(
    task: Training,
    features: Sequence[Feature],
    mechanism: Mechanism,
    state: OptimiserState,
    opened: NDArray[np.int64],
    *,
    part: float = 1.0,
) -> OptimiserState:
    """Return the state after a round with the opened lattice sum `opened`, int64 (dimension,).

    `part` is the share of the study's countries in the sum; in local mode the mean is over them.
    """
    divisor = mechanism.scale * mechanism.sampling_rate * task.patients
    gradient = opened / divisor
    if task.local is not None:
        gradient /= part
    elif task.l2:
        gradient += task.l2 * task.weights_only(features, state.position)
    iterate = state.position - task.rate_at(state.round_number + 1) * gradient
    position = iterate + task.momentum * (iterate - state.iterate)
    next_state = replace(
        state, round_number=state.round_number + 1, position=position, iterate=iterate
    )
    if next_state.round_number <= first_averaged(task):
        return next_state
    return replace(next_state, total=state.total + iterate, averaged=state.averaged + 1)


def skip(state: OptimiserState) -> OptimiserState:
    """Return the state after a void round: the model does not change, the round counts."""
    return replace(state, round_number=state.round_number + 1)


def first_averaged(task: Training) -> int:
    """Return the number of rounds before the first averaged iterate; the last one is averaged."""
    return task.rounds - max(1, math.ceil(task.average_last * task.rounds))
