import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.mechanism import LANE_BITS, Mechanism, Rounding, Scope

GIVEN = {
    "phase": "train",
    "rounds": 10,
    "dimension": 40,
    "clip_norm": 1.0,
    "scale": 64,
    "noise_std": 50,
    "patients_bound": 1000,
}


def mechanism(**changes: object) -> Mechanism:
    return Mechanism.model_validate({**GIVEN, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_std": 2},
        {"noise_std": 3.5},
        {"rounds": 0},
        {"sampling_rate": 0},
        {"sampling_rate": 1.01},
        {"clip_norm": math.inf},
        {"clip_norm": math.nan},
        {"scale": 0},
        {"dimension": 0},
        {"phase": "Train"},
        {"phase": ""},
        {"colour": "red"},
    ],
    ids=str,
)
def test_constants_out_of_range_make_no_mechanism(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        mechanism(**changes)


def test_sensitivity_is_the_rounded_bound_and_not_the_clip_norm() -> None:
    """Kairouz, Liu, Steinke 2021: min of the certain bound and the likely one."""
    reach, d, slack = 64, 40, math.sqrt(2 * 0.5)
    often = reach**2 + d / 4 + slack * (reach + math.sqrt(d) / 2)
    always = (reach + math.sqrt(d)) ** 2
    assert mechanism().squared_sensitivity == math.floor(min(often, always))
    assert mechanism().sensitivity > reach


def test_integers_are_not_widened() -> None:
    assert mechanism(rounding=Rounding.INTEGER).squared_sensitivity == 64**2


def test_shared_noise_counts_the_honest_and_local_noise_counts_itself() -> None:
    assert mechanism().variance(3) == 3 * 50**2
    assert mechanism(scope=Scope.LOCAL).variance(3) == 50**2


@given(
    st.integers(1, 10**6),
    st.integers(1, 2**16),
    st.integers(3, 2**20),
    st.integers(1, 10**7),
    st.integers(2, 256),
)
def test_a_lane_holds_every_likely_sum(
    dimension: int, scale: int, std: int, patients: int, countries: int
) -> None:
    given = mechanism(dimension=dimension, scale=scale, noise_std=std, patients_bound=patients)
    bits = given.lane_bits(countries)
    tail = std * math.sqrt(countries * 2 * math.log(2 * dimension * 2**40))
    assert bits in LANE_BITS
    assert bits == 64 or patients * given.sensitivity + tail < 2 ** (bits - 1)


@pytest.mark.parametrize(("patients", "bits"), [(1000, 21), (10**6, 32), (10**9, 64)])
def test_lanes_widen_with_the_public_bound(patients: int, bits: int) -> None:
    assert mechanism(patients_bound=patients).lane_bits(4) == bits
