"""Templates of a task's noisy releases: sizes, scales and rounds from public terms.

The noise of each template is a placeholder; calibration sets it from the study's ε and δ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocols.numerics.mechanism import (
    LARGEST_SCALE,
    SMALLEST_NOISE_STD,
    Mechanism,
    Rounding,
    Scope,
)

COHORT_FLOOR = "cohort-floor"
TRAIN = "train"
LOCAL_STEP = "local-step"
EVALUATE = "evaluate"
COUNT = "count"
HISTOGRAM = "histogram"


class Part(StrEnum):
    """The part of a cohort that a release is computed from; no patient is in both."""

    TRAINING = "training"
    HELD_OUT = "held-out"


PART_OF: Mapping[str, Part] = {
    TRAIN: Part.TRAINING,
    LOCAL_STEP: Part.TRAINING,
    EVALUATE: Part.HELD_OUT,
}
"""The releases that are computed from a part of the cohort; the others are from everybody."""
COHORT_FLOOR_FRACTION = 0.05
"""Part of a study's budget for the count behind the cohort floor, if the study pays for it."""
COHORT_Z = 3.0902
"""The noise exceeds this many standard deviations in one direction with probability 0.001."""
COHORT_ERRORS = "1 in 1,000"
"""How often, at most, the noise decides wrongly about a cohort: see `CohortThreshold`."""
INTEGER_SCALE = 128
REACH = 256.0
REACH_PER_ROOT_COORDINATE = 16.0
NORM_MARGIN = 1 + 1e-9
"""Keeps a vector of exactly the allowed norm within a bound computed in floating point."""


def cohort_floor(patients_bound: int) -> Mechanism:
    """Return the template of the noisy count for the cohort floor, with one country's noise."""
    return counted(COHORT_FLOOR, 1, 1, patients_bound, scope=Scope.LOCAL)


@dataclass(frozen=True)
class CohortThreshold:
    """The cohort floor with room for the noise of its count, in lattice units.

    A noisy count passes from floor + z·σ on. So a cohort below the floor passes, and one of at
    least `sure` patients is refused, with probability 0.001 at most.
    """

    smallest_cohort: int
    noise_std: int
    scale: int

    @classmethod
    def of(cls, smallest_cohort: int, mechanism: Mechanism) -> "CohortThreshold":
        """Return the threshold of an agreement's smallest cohort and a count's mechanism."""
        return cls(smallest_cohort, mechanism.noise_std, mechanism.scale)

    @property
    def allowance(self) -> int:
        """z·σ, rounded up: what the comparison adds to the floor."""
        return math.ceil(COHORT_Z * self.noise_std)

    @property
    def smallest_count(self) -> int:
        """The smallest noisy count that passes."""
        return self.smallest_cohort * self.scale + self.allowance

    @property
    def sure(self) -> int:
        """Number of patients from which on a cohort passes, but for the stated errors."""
        return self.smallest_cohort + math.ceil(2 * self.allowance / self.scale)

    def sentence(self) -> str:
        """Return the floor and its error rates in one sentence, without a full stop."""
        return (
            f"a cohort of {self.smallest_cohort - 1} patients or fewer passes in {COHORT_ERRORS} "
            f"cases at most; one of {self.sure} or more is refused in {COHORT_ERRORS} cases at most"
        )


def largest_cohort_noise(smallest_cohort: int, scale: int = INTEGER_SCALE) -> int:
    """Return the largest noise, in lattice units, that an agreement may state for its counts.

    With more, the room for the noise would more than double the floor.
    """
    return math.floor(smallest_cohort * scale / COHORT_Z)


def counted(
    phase: str, dimension: int, ones: int, patients_bound: int, *, scope: Scope = Scope.SHARED
) -> Mechanism:
    """Return the template of a table in which each patient is counted in `ones` cells."""
    return Mechanism(
        phase=phase,
        rounds=1,
        dimension=dimension,
        clip_norm=math.sqrt(ones) * NORM_MARGIN,
        scale=INTEGER_SCALE,
        noise_std=SMALLEST_NOISE_STD,
        patients_bound=patients_bound,
        rounding=Rounding.INTEGER,
        scope=scope,
    )


def bounded(phase: str, dimension: int, squared_norm: float, patients_bound: int) -> Mechanism:
    """Return the template of a sum of vectors of at most this squared norm, rounded at random."""
    clip_norm = math.sqrt(squared_norm) * NORM_MARGIN
    return Mechanism(
        phase=phase,
        rounds=1,
        dimension=dimension,
        clip_norm=clip_norm,
        scale=rounded_scale(clip_norm, dimension),
        noise_std=SMALLEST_NOISE_STD,
        patients_bound=patients_bound,
    )


def rounded_scale(clip_norm: float, dimension: int) -> int:
    """Return a scale at which rounding adds less than 1 % to the sensitivity."""
    reach = max(REACH, REACH_PER_ROOT_COORDINATE * math.sqrt(dimension))
    return min(LARGEST_SCALE, max(1, math.ceil(reach / clip_norm)))


def same_but_noise(template: Mechanism, mechanism: Mechanism) -> bool:
    """Return whether a mechanism differs from its template in the noise only.

    A derived mechanism must be equal to its template, since its noise is not calibrated.
    """
    if template.scope is Scope.DERIVED:
        return template == mechanism
    return template.model_copy(update={"noise_std": mechanism.noise_std}) == mechanism
