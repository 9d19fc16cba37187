"""Local mode, for slow links: several steps of descent in each country before one sum is made.

Each step is an ordinary training release, secret sample and rounding and all, and has enough noise
of this country's own to stand alone (`local-step`). What a round then sums over countries is made
of the noised integers of its steps and of public constants (`train`, derived): whoever could have
seen every local step learns nothing more from it, so it costs nothing more (post-processing).

With public D = q · patients / countries, scale s and rate η, a step moves the local model by
-η·(ĝ/(s·D) + l2·w), ĝ being its noised integers. The update is what brought the model from where
it was received to where it is, in clip norms of patients, (D/η)·(received - local) = Σ ĝ/s +
D·l2·Σ w: whole numbers at the steps' own scale, but for the penalty. Source: McMahan et al. 2017
(federated averaging); Reddi et al. 2021, Algorithm 1 (the mean update as a gradient).
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import (
    LARGEST_SCALE,
    MOST_PATIENTS,
    MOST_ROUNDS,
    SMALLEST_NOISE_STD,
    Mechanism,
    Rounding,
    Scope,
)
from protocols.tasks.schedule import LOCAL_STEP

MOST_STEPS = 1_000
UPDATE_REACH = 64
"""Lattice units of one clip norm in an update. A step's own noise is half a clip norm or more
at any ε worth promising; 3 units and the rounding then widen an update's noise by under 1 %."""
DEVIATION, MARGIN = 8, 20
"""A Poisson sample of mean μ exceeds μ + 8·√μ + 20 with a chance under 2^-40 (Bernstein)."""


class LocalMode(BaseModel):
    """How many steps of descent a country takes by itself in each round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[int, Field(ge=2, le=MOST_STEPS)]

    def sentence(self, honest: int) -> str:
        """Return in plain words what training relies on, and what that costs in accuracy."""
        return (
            f"Each country takes {self.steps} steps of training by itself in every round. Through "
            "all of training its patients are protected by its own noise alone, whatever other "
            f"countries do (h=1); h={honest} is relied on for an evaluation only. The price is "
            f"accuracy: with {honest} countries' noise to rely on, as many steps would need "
            f"{math.sqrt(honest):.3g} times less noise."
        )

    def check(self, rounds: int) -> None:
        """Raise ProtocolFault where so many rounds have more steps than a release may repeat."""
        if rounds * self.steps > MOST_ROUNDS:
            raise ProtocolFault(
                f"{rounds} rounds of {self.steps} local steps are more than {MOST_ROUNDS} steps",
                why="each of them is a noisy release of its own",
                fix="choose fewer rounds, or fewer `steps`",
            )

    def step_template(self, train: Mechanism) -> Mechanism:
        """Return the template of the local steps of all rounds, from that of a shared release."""
        changes = {"phase": LOCAL_STEP, "rounds": train.rounds * self.steps, "scope": Scope.LOCAL}
        return Mechanism.model_validate({**dict(train), **changes})

    def update_template(self, train: Mechanism) -> Mechanism:
        """Return the template of the sums of updates, which nothing may be filled into.

        Its reach is that of a sample of everybody, in one country, at the clip norm in every step:
        what a country clamps its update to, whatever its noise.
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
            patients_bound=min(MOST_PATIENTS, sampled),
            rounding=Rounding.INTEGER,
            scope=Scope.DERIVED,
        )


def most_sampled(patients: int, rate: float) -> int:
    """Return how many of so many patients a sample holds at most, but for a chance of 2^-40."""
    mean = patients * rate
    return min(patients, math.ceil(mean + DEVIATION * math.sqrt(mean) + MARGIN))
