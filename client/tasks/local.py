"""Local mode on a node: steps of descent along noised sums, and the update that they came to.

No record is seen here: what a step takes has its noise already. From there on all is public
constants, so the update costs nothing beyond the steps (`protocols.tasks.local`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.tasks.registry import malformed, received_model
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Feature, Task, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes

LARGEST_COORDINATE = 1e30
"""A local model is kept within it, so that no descent fails: a failure would tell something."""


@dataclass(frozen=True)
class Descent:
    """A local model on its way: after `taken` of its steps it is `model`, (dimension,).

    `walked` is (received - model)·divisor/rate: how far that is, in clip norms. `rate` is the step
    size, `divisor` how many patients a step counts on.
    """

    task: Training
    features: Sequence[Feature]
    rate: float
    divisor: float
    model: FloatArray
    walked: FloatArray
    taken: int = 0

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
        """Return the descent before its first step, at the model that `payload` holds.

        `countries` is how many the study has. Raises Refusal MALFORMED.
        """
        if not isinstance(task, Training) or task.local is None:
            raise malformed(f"A study of `{task.kind}` asks for local steps, and has none")
        model = _kept(received_model(payload, task.dimension(features)))
        divisor = task.sampling_rate * task.patients / countries
        rate = task.rate_at(round_number)
        return cls(task, features, rate, divisor, model, np.zeros_like(model))

    @property
    def over(self) -> bool:
        """Whether every step of the round is taken."""
        return self.task.local is None or self.taken >= self.task.local.steps

    @property
    def payload(self) -> bytes:
        """The model that the next step's gradients are computed at."""
        return vector_to_bytes(self.model)

    def step(self, noised: NDArray[np.int64], scale: int) -> Self:
        """Return the descent after a step along a noised sum of gradients, in 1/scale."""
        penalty = self.task.l2 * self.task.weights_only(self.features, self.model)
        force = noised / scale + self.divisor * penalty
        model = _kept(self.model - self.rate / self.divisor * force)
        return replace(self, model=model, walked=self.walked + force, taken=self.taken + 1)

    def update(self, mechanism: Mechanism) -> NDArray[np.int64]:
        """Return the update in whole lattice units of a derived release, within its reach."""
        units = np.rint(self.walked * mechanism.scale)
        return np.clip(units, -mechanism.reach, mechanism.reach).astype(np.int64)


def _kept(model: FloatArray) -> FloatArray:
    return np.clip(model, -LARGEST_COORDINATE, LARGEST_COORDINATE)
