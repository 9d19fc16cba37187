"""Shared parts of network training tasks: public initial weights, step size decay, input rows."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from protocols.tasks.features import Columns, Feature, FloatArray
from protocols.tasks.layout import row_width
from protocols.tasks.tensors import Tensor, check_names, penalised, start_vector
from protocols.tasks.training import Training

NARROWER = "use fewer or narrower layers"
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Decay(StrEnum):
    """How the step size changes over the rounds."""

    NONE = "none"
    LINEAR = "linear"
    """Falls linearly to 1/rounds of its first value."""
    COSINE = "cosine"
    """Falls slowly, then fast, then slowly, towards zero (Loshchilov, Hutter 2017)."""


class Network(Training):
    """A training task whose model starts from weights expanded from the public `seed`."""

    seed: Seed = 1
    decay: Decay = Decay.NONE

    @abstractmethod
    def tensors(self, features: Sequence[Feature]) -> tuple[Tensor, ...]:
        """Return the parts of the model vector, in its order."""

    def check(self, features: Sequence[Feature]) -> None:
        """Raise ProtocolFault if the task does not fit the declared features."""
        super().check(features)
        check_names(self.tensors(features))

    def initial(self, features: Sequence[Feature]) -> FloatArray:
        """Return the initial model, which is the same on every machine."""
        return start_vector(self.tensors(features), self.seed)

    def weights_only(self, features: Sequence[Feature], vector: FloatArray) -> FloatArray:
        """Return a copy of a model vector with zero for every coordinate that is not penalised."""
        return penalised(vector, self.tensors(features))

    def rows(self, features: Sequence[Feature], columns: Columns) -> FloatArray:
        """Return encoded inputs (patients, coordinates), without a bias."""
        return self.encoded(features, columns)[:, 1:]

    def width(self, features: Sequence[Feature]) -> int:
        """Return how many coordinates a row has."""
        return row_width(self.input_features(features)) - 1

    def rate_at(self, round_number: int) -> float:
        """Return the step size of a round, the first being number 1."""
        progress = (round_number - 1) / self.rounds
        if self.decay is Decay.LINEAR:
            return self.learning_rate * (1 - progress)
        if self.decay is Decay.COSINE:
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate
