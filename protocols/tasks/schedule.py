"""Templates of a task's noisy releases: sizes, scales and rounds from public terms.

The noise of each template is a placeholder; calibration sets it from the study's ε and δ.
"""

import math

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
COHORT_FLOOR_FRACTION = 0.05
"""Part of a study's budget for the noisy count behind the cohort floor."""
INTEGER_SCALE = 128
REACH = 256.0
REACH_PER_ROOT_COORDINATE = 16.0
NORM_MARGIN = 1 + 1e-9
"""Keeps a vector of exactly the allowed norm within a bound computed in floating point."""


def cohort_floor(patients_bound: int) -> Mechanism:
    """Return the template of the noisy count for the cohort floor, with one country's noise."""
    return counted(COHORT_FLOOR, 1, 1, patients_bound, scope=Scope.LOCAL)


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
