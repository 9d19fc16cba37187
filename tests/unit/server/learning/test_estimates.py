import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.learning.estimates import (
    NOISIEST,
    NORMAL_QUANTILE,
    Ends,
    Estimate,
    Unreleased,
    cell_noise_std,
    figures_json,
    ratio,
)
from tests.support.patients import glm, release

ZERO = np.array(0.0)


def test_the_noise_of_a_cell_is_that_of_all_contributions() -> None:
    mechanism = release(glm(), "evaluate", noise_std=640)
    assert cell_noise_std(mechanism, 4) == pytest.approx(2 * 640 / mechanism.scale)


def _share(part: float, total: float) -> Ends:
    """The interval of a share without noise."""
    of = np.array(total)
    return ratio(np.array(part), of, (ZERO, of, -of), ZERO)


def test_a_share_without_noise_has_the_interval_of_wilson() -> None:
    ends, square = _share(30.0, 100.0), NORMAL_QUANTILE**2
    middle = (30 + square / 2) / (100 + square)
    reach = NORMAL_QUANTILE / (100 + square) * math.sqrt(100 * 0.3 * 0.7 + square / 4)
    assert float(ends.value) == pytest.approx(0.3)
    assert float(ends.low) == pytest.approx(middle - reach)
    assert float(ends.high) == pytest.approx(middle + reach)


def test_noise_widens_an_interval() -> None:
    total = np.array(100.0)
    quiet = ratio(np.array(30.0), total, (ZERO, total, -total), ZERO)
    loud = ratio(np.array(30.0), total, (ZERO + 50, total, -total), ZERO)
    assert loud.low < quiet.low < quiet.high < loud.high


@pytest.mark.parametrize(
    ("total", "noise"), [(100.0, 100 * NOISIEST * 1.01), (0.0, 0.0), (-5.0, 0)]
)
def test_a_total_that_is_hardly_known_gives_no_figure(total: float, noise: float) -> None:
    ends = ratio(np.array(30.0), np.array(total), (ZERO + 1, ZERO, ZERO), np.array(noise))
    assert ends.figure() is Unreleased.TOO_NOISY


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_interval_ends_are_rounded_outwards(value: float, down: float, up: float) -> None:
    estimate = Estimate(value, value - down, value + up)
    written = estimate.to_json()
    assert written["low"] <= estimate.low
    assert written["high"] >= estimate.high
    assert written["low"] <= written["value"] <= written["high"]
    assert estimate.low - written["low"] < 1.1e-6


def test_a_figure_that_is_not_released_says_why_and_is_never_zero() -> None:
    figures = {
        "auc": None,
        "accuracy": Estimate(0.5, 0.4, 0.6),
        "noisy": Unreleased.TOO_NOISY,
        "coarse": Unreleased.TOO_COARSE,
    }
    assert json.loads(json.dumps(figures_json(figures))) == {
        "auc": None,
        "accuracy": {"value": 0.5, "low": 0.4, "high": 0.6},
        "noisy": "too noisy",
        "coarse": "too coarse",
    }
