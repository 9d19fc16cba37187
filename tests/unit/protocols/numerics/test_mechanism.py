import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import (
    LANE_BITS,
    Mechanism,
    Rounding,
    Scope,
)
from protocols.numerics.packing import pack, unpack

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
    """Kairouz, Liu, Steinke 2021: the minimum of the certain bound and the likely bound."""
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
    tail = std * math.sqrt(countries * 2 * math.log(2 * dimension * 2**40))
    needed = patients * given.sensitivity + tail
    try:
        bits = given.lane_bits(countries)
    except ProtocolFault:
        assert needed * 1.001 + patients > 2**63
    else:
        assert bits in LANE_BITS
        assert needed < 2 ** (bits - 1)


@pytest.mark.parametrize(("patients", "bits"), [(1000, 21), (10**6, 32), (10**9, 64)])
def test_lanes_widen_with_the_public_bound(patients: int, bits: int) -> None:
    assert mechanism(patients_bound=patients).lane_bits(4) == bits


WIDE = {"clip_norm": 1e6, "scale": 2**24, "patients_bound": 10**9}
WRAPS = 2.0**-40


def test_sums_that_fit_no_word_give_a_clear_error() -> None:
    """They would need more than 64 bits and wrap around."""
    with pytest.raises(ProtocolFault, match="'train' may overflow a word of 64 bits") as fault:
        mechanism(**WIDE).lane_bits(4)
    assert "1000000000 patients" in fault.value.why
    assert "patients_bound" in fault.value.fix


@pytest.mark.parametrize("step", [1, 2])
def test_the_widest_sum_that_fits_a_word_is_accepted_and_the_next_refused(step: int) -> None:
    """INTEGER rounding at Δ = 2^43: 2^20 patients reach 2^63, one fewer leaves room for noise."""
    fits = {"clip_norm": 2.0**19, "scale": 2**24, "rounding": Rounding.INTEGER, "noise_std": 3}
    assert mechanism(**fits, patients_bound=2**20 - step).lane_bits(256) == 64
    with pytest.raises(ProtocolFault):
        mechanism(**fits, patients_bound=2**20 - 1 + step).lane_bits(256)


@pytest.mark.parametrize("std", [3, 7])
@pytest.mark.parametrize("countries", [2, 5])
def test_the_tail_that_lanes_leave_room_for_holds_for_the_exact_law(
    std: int, countries: int
) -> None:
    """The exact law of the sum of shares far from the mean, by convolution of log probabilities.

    The sum exceeds the room of a lane for noise with probability 2^-40 at most, all coordinates
    together. The probability is above 2^-60, so the bound is not so wide that the test could not
    fail.
    """
    dimension, reach = 1000, 30 * std
    points = np.arange(-reach, reach + 1)
    share = np.exp(-(points**2) / (2 * std**2))
    law = share = share / share.sum()
    for _ in range(countries - 1):
        law = np.convolve(law, share)
    tail = std * math.sqrt(countries * 2 * math.log(2 * dimension / WRAPS))
    middle, beyond = len(law) // 2, math.ceil(tail)
    # Far from the mean the convolution adds positive numbers only: its relative error is small.
    exceeded = 2 * law[middle + beyond :].sum() * dimension
    assert 2.0**-60 < exceeded <= WRAPS


@pytest.mark.parametrize("shift", [-3.7, -0.5, 0.25, 2.2])
@pytest.mark.parametrize("std", [3, 4.5])
def test_noise_is_sub_gaussian_as_the_lane_s_proof_says(std: float, shift: float) -> None:
    """E[e^(tX)] against e^(t²σ²/2), t = shift/σ², by sums over the integers."""
    points, t = np.arange(-400, 401), shift / std**2
    weights = np.exp(-(points**2) / (2 * std**2))
    moment = (weights * np.exp(t * points)).sum() / weights.sum()
    assert moment <= math.exp(t**2 * std**2 / 2) * (1 + 1e-12)


@pytest.mark.parametrize("bits", LANE_BITS)
def test_sums_at_the_edge_of_their_lane_open_and_larger_ones_overflow(bits: int) -> None:
    edge = 2 ** (bits - 1) - 1
    values = np.array([edge, -edge - 1, 0, 5], np.int64)
    assert unpack(pack(values, bits, 4), bits)[:4].tolist() == values.tolist()
    once_more = pack(np.array([1, 0, 0, 0], np.int64), bits, 4)
    assert unpack(pack(values, bits, 4) + once_more, bits)[0] != edge + 1
