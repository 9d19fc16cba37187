import math
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.policy.facts import (
    LARGEST,
    day,
    listed,
    micro_ceiling,
    micro_floor,
    pico_ceiling,
    pico_floor,
    seconds,
    share_of,
)

amounts = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@given(amounts)
def test_limits_round_down_and_losses_up(amount: float) -> None:
    exact = Fraction(repr(amount)) * 10**6
    assert micro_floor(amount) == math.floor(exact)
    assert micro_ceiling(amount) == math.ceil(exact)


@given(amounts, amounts)
def test_a_larger_loss_never_fits_a_smaller_limit(loss: float, limit: float) -> None:
    if micro_ceiling(loss) <= micro_floor(limit):
        assert loss <= limit


@pytest.mark.parametrize("text", ["0.1", "0.29", "0.3", "0.7", "1.1", "2.675"])
def test_a_decimal_is_within_a_limit_of_the_same_value(text: str) -> None:
    assert micro_ceiling(float(text)) == micro_floor(float(text))


@pytest.mark.parametrize("amount", [math.inf, -math.inf, math.nan, 1e300])
def test_an_invalid_amount_is_larger_than_any_limit(amount: float) -> None:
    assert micro_ceiling(amount) == LARGEST


def test_delta_is_counted_in_units_of_1e_minus_12() -> None:
    assert pico_floor(1e-5) == pico_ceiling(1e-5) == 10_000_000
    assert pico_ceiling(1e-13) == 1
    assert pico_floor(1e-13) == 0


def test_words() -> None:
    moment = datetime(2026, 9, 1, 12, 30, 59, tzinfo=UTC)
    assert day(moment) == "2026-09-01 12:30:59 UTC"
    assert day(moment.replace(second=0)) == "2026-09-01 12:30 UTC"
    assert seconds(moment) == 1_788_265_859
    assert share_of(1, 3) == "33.3 %"
    assert share_of(1, 0) == "not stated"
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "a, b"
