"""Local mode on a node: gradient descent along noised sums, and the update that results from it.

No record is read here: a step takes a sum that already has its noise. All other inputs are public
constants, so the update costs no privacy beyond the steps (`protocols.tasks.local`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.tasks.requests import malformed, read_model
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Feature, Task, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes

LARGEST_COORDINATE = 1e30
"""Coordinates are clipped to it, so that no descent fails: a failure would reveal something."""


@dataclass(frozen=True)
class Descent:
    """A gradient descent: after `steps_taken` steps the local model is `model`, (dimension,).

    `displacement` is (received - model)·divisor/rate, the way from the received model in clip
    norms. `rate` is the step size, `divisor` the expected number of patients in a step.
    """

    task: Training
    features: Sequence[Feature]
    rate: float
    divisor: float
    model: FloatArray
    displacement: FloatArray
    steps_taken: int = 0

    @classmethod
    def start(
        cls,
        task: Task,
        features: Sequence[Feature],
        *,
        countries: int,
        round_number: int,
        payload: bytes,
    ) -> Self:
        """Return the descent before its first step, at the model in `payload`.

        `countries` is the number of countries in the study. Raises Refusal MALFORMED.
        """
        if not isinstance(task, Training) or task.local is None:
            raise malformed(
                f"The request asks for local steps, and the study of `{task.kind}` has none"
            )
        model = _clipped(read_model(payload, task.dimension(features)))
        divisor = task.sampling_rate * task.patients / countries
        rate = task.rate_at(round_number)
        return cls(task, features, rate, divisor, model, np.zeros_like(model))

    @property
    def over(self) -> bool:
        """Return whether every step of the round is taken."""
        return self.task.local is None or self.steps_taken >= self.task.local.steps

    @property
    def payload(self) -> bytes:
        """The model at which the gradients of the next step are computed."""
        return vector_to_bytes(self.model)

    def step(self, noised: NDArray[np.int64], scale: int) -> Self:
        """Return the descent after a step along a noised sum of gradients, in units of 1/scale."""
        penalty = self.task.l2 * self.task.weights_only(self.features, self.model)
        gradient = noised / scale + self.divisor * penalty
        return replace(
            self,
            model=_clipped(self.model - self.rate / self.divisor * gradient),
            displacement=self.displacement + gradient,
            steps_taken=self.steps_taken + 1,
        )

    def update(self, mechanism: Mechanism) -> NDArray[np.int64]:
        """Return the update in whole lattice units of a derived release, clipped to its reach."""
        units = np.rint(self.displacement * mechanism.scale)
        return np.clip(units, -mechanism.reach, mechanism.reach).astype(np.int64)


def _clipped(model: FloatArray) -> FloatArray:
    return np.clip(model, -LARGEST_COORDINATE, LARGEST_COORDINATE)
