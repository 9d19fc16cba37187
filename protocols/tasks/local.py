"""Local mode, for slow links: each country takes several gradient steps before one sum is made.

Each step is an ordinary training release (`local-step`), with a secret sample, rounding, and enough
noise from this country alone. A round then sums values that are computed only from the noisy
integers of its steps and from public constants (`train`, derived). They reveal nothing beyond the
local steps, so the sum costs no further privacy (post-processing).

With public D = q · patients / countries, scale s and rate η, a step moves the local model by
-η·(ĝ/(s·D) + l2·w), where ĝ are its noisy integers. The update is the difference between the
received and the local model, as a sum of gradients: (D/η)·(received - local) = Σ ĝ/s + D·l2·Σ w.
At the steps' scale these are whole numbers, except for the penalty. Source: McMahan et al. 2017
(federated averaging); Reddi et al. 2021, Algorithm 1 (the mean update as a gradient).
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from protocols.numerics.mechanism import (
    LARGEST_SCALE,
    MAX_PATIENTS,
    SMALLEST_NOISE_STD,
    Mechanism,
    Rounding,
    Scope,
)
from protocols.tasks.schedule import LOCAL_STEP

MAX_STEPS = 1_000
UPDATE_REACH = 64
"""Lattice units per clip norm in an update. At any useful ε a step's noise is at least half a clip
norm; 3 units of noise and the rounding then widen an update's noise by less than 1 %."""
DEVIATION, MARGIN = 8, 20
"""A Poisson sample of mean μ exceeds μ + 8·√μ + 20 with probability below 2^-40 (Bernstein)."""


class LocalMode(BaseModel):
    """How many gradient steps a country takes by itself in each round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)]

    def sentence(self, honest: int) -> str:
        """Return a text that says what training relies on, and what that costs in accuracy."""
        return (
            f"Each country takes {self.steps} steps of training by itself in every round. During "
            "training its patients are protected by its own noise alone, whatever other countries "
            f"do (h=1); only an evaluation relies on h={honest}. The cost is accuracy: with the "
            f"noise of {honest} countries, the same number of steps would need "
            f"{math.sqrt(honest):.3g} times less noise."
        )

    def step_template(self, train: Mechanism) -> Mechanism:
        """Return the template of the local steps of all rounds, from that of a shared release."""
        changes = {"phase": LOCAL_STEP, "rounds": train.rounds * self.steps, "scope": Scope.LOCAL}
        return Mechanism.model_validate({**dict(train), **changes})

    def update_template(self, train: Mechanism) -> Mechanism:
        """Return the template of the sums of updates, whose noise is not calibrated.

        Its reach assumes that all patients are in one country and that each one sampled has the
        clip norm in every step. A country clamps its update to it, whatever the noise.
        """
        sampled = self.steps * most_sampled(train.patients_bound, train.sampling_rate)
        return Mechanism(
            phase=train.phase,
            rounds=train.rounds,
            sampling_rate=train.sampling_rate,
            dimension=train.dimension,
            clip_norm=train.clip_norm,
            scale=min(LARGEST_SCALE, max(1, math.ceil(UPDATE_REACH / train.clip_norm))),
            noise_std=SMALLEST_NOISE_STD,
            patients_bound=min(MAX_PATIENTS, sampled),
            rounding=Rounding.INTEGER,
            scope=Scope.DERIVED,
        )


def most_sampled(patients: int, rate: float) -> int:
    """Return a size that a sample of `patients` exceeds with probability below 2^-40."""
    mean = patients * rate
    return min(patients, math.ceil(mean + DEVIATION * math.sqrt(mean) + MARGIN))
