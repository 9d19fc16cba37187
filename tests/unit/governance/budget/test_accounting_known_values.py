"""Compares each step of the accounting with figures that are computed here in another way.

The steps are tested in the order in which they are applied: Δ after rounding, σ² − 4, τ, the step
from continuous to discrete noise, 2τd and e^(τd), Poisson samples.
"""

import math

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf
from opacus.accountants import PRVAccountant
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from governance.budget.accounting import (
    MICRO,
    PEIKERT_SLACK,
    cap_micro,
    epsilon,
    noise_multiplier,
    rdp_micro,
    slack,
    tau,
)
from protocols.numerics.mechanism import Mechanism, Rounding, Scope

DELTA = 1e-5


def mechanism(**changes: object) -> Mechanism:
    fields = {
        "phase": "train",
        "rounds": 1,
        "dimension": 100,
        "clip_norm": 1.5,
        "scale": 40,
        "noise_std": 30,
        "patients_bound": 1_000,
    }
    return Mechanism.model_validate(fields | changes)


def test_the_sensitivity_includes_rounding() -> None:
    """60² + 100/4 + (60 + 10/2) = 3690; the clipped norm alone would give 3600."""
    assert mechanism().squared_sensitivity == 3690
    assert mechanism(rounding=Rounding.INTEGER).squared_sensitivity == 3600


@pytest.mark.parametrize(
    ("honest", "scope", "exact"),
    [
        (2, Scope.SHARED, 0.69765),
        (3, Scope.SHARED, 0.85477),
        (3, Scope.LOCAL, 0.49277),
    ],
)
def test_four_units_of_variance_are_subtracted(honest: int, scope: Scope, exact: float) -> None:
    """The value is √((h·900 − 4)/3690)."""
    multiplier = noise_multiplier(mechanism(scope=scope), honest)
    assert multiplier == pytest.approx(exact, abs=1e-5)
    assert multiplier < math.sqrt((honest if scope is Scope.SHARED else 1) * 900 / 3690)


def discrete(std: int, reach: int) -> list[mpf]:
    weights = [mp.exp(-mpf(v * v) / (2 * std * std)) for v in range(-reach, reach + 1)]
    total = mpmath.fsum(weights)
    return [weight / total for weight in weights]


def convolved(first: list[mpf], second: list[mpf], points: range) -> list[mpf]:
    """Return the distribution of a sum at these points; both distributions are centred."""
    a, b = len(first) // 2, len(second) // 2
    return [
        mpmath.fsum(first[v + a] * second[p - v + b] for v in range(-a, a + 1) if -b <= p - v <= b)
        for p in points
    ]


@pytest.mark.parametrize("std", [1, 2, 3])
def test_two_noise_shares_differ_from_one_by_at_most_tau(std: int) -> None:
    """They differ by at most e^(±τ), and by more than a thousandth of τ.

    The sum of two noise shares is compared, to 60 digits, with one discrete Gaussian of twice the
    variance. Its standard deviation, √2·std, is not a whole number.
    """
    with mp.workdps(60):
        reach, points = 40 * std, range(-4 * std, 4 * std + 1)
        both = convolved(discrete(std, reach), discrete(std, reach), points)
        weights = [mp.exp(-mpf(v * v) / (4 * std * std)) for v in range(-reach, reach + 1)]
        single = [weights[v + reach] / mpmath.fsum(weights) for v in points]
        largest_log_ratio = max(abs(mp.log(x / y)) for x, y in zip(both, single, strict=True))
        assert mpf(tau(std, 2)) / 1000 < largest_log_ratio <= tau(std, 2)


def test_each_further_noise_share_adds_a_term_to_tau() -> None:
    """τ = 10·Σ e^(−2π²·9·k/(k+1)): with σ = 3 and 4 noise shares, about 2.6e-38."""
    with mp.workdps(40):
        terms = [mp.exp(-18 * mp.pi**2 * mpf(k) / (k + 1)) for k in (1, 2, 3)]
        exact = 10 * mpmath.fsum(terms)
    assert float(exact) == pytest.approx(2.6236e-38, rel=1e-4)
    assert exact < tau(3, 4) < exact * 1.000001


@pytest.mark.parametrize(("variance", "value"), [(9, 0), (18, 1)])
def test_a_continuous_gaussian_rounded_at_random_is_the_discrete_one(
    variance: int, value: int
) -> None:
    """The step of Peikert 2010, by an integral to 40 digits.

    N(0, σ² − 4) is rounded by a discrete Gaussian that is centred on it. The probability of `value`
    is compared with that under the discrete Gaussian of variance σ².
    """
    with mp.workdps(40):
        probability = probability_after_rounding(variance - 4, value)
        weights = [mp.exp(-mpf(v * v) / (2 * variance)) for v in range(-110, 111)]
        exact = weights[value + 110] / mpmath.fsum(weights)
        assert abs(mp.log(probability / exact)) <= PEIKERT_SLACK


def probability_after_rounding(variance: int, value: int, rounding_variance: int = 4) -> mpf:
    """Return the probability that N(0, variance), rounded by a discrete Gaussian, gives `value`.

    The discrete Gaussian has variance `rounding_variance`, centred on the number it rounds. The
    trapezium rule is exact to these digits for such a smooth function.
    """

    def density(x: mpf) -> mpf:
        middle = math.floor(x)
        near = range(middle - 45, middle + 46)
        total = mpmath.fsum(mp.exp(-((v - x) ** 2) / (2 * rounding_variance)) for v in near)
        rounds_to_value = mp.exp(-((value - x) ** 2) / (2 * rounding_variance)) / total
        return mp.exp(-(x**2) / (2 * mpf(variance))) * rounds_to_value

    step, step_count = mpf(1) / 12, 12 * 55
    normaliser = mp.sqrt(2 * mp.pi * variance)
    densities = (density(step * n) for n in range(-step_count, step_count + 1))
    return step * mpmath.fsum(densities) / normaliser


def test_the_integral_detects_a_narrower_rounding() -> None:
    """With a variance of 1 instead of 4 the two distributions differ by 1e-17, not by 1e-34."""
    with mp.workdps(30):
        probability = probability_after_rounding(8, 1, rounding_variance=1)
        weights = [mp.exp(-mpf(v * v) / 18) for v in range(-110, 111)]
        log_ratio = abs(mp.log(probability / (weights[111] / mpmath.fsum(weights))))
        assert 1e-18 < log_ratio <= 5 * mp.exp(-2 * mp.pi**2)


def test_peikert_slack_is_the_bound_from_the_theta_function() -> None:
    """Σ over integers of e^(−(v−x)²/8) is √(8π)·(1 + 2·Σ e^(−8π²m²)·cos 2πmx)."""
    with mp.workdps(60):
        theta_tail = 2 * mpmath.fsum(mp.exp(-8 * mp.pi**2 * m * m) for m in (1, 2, 3))
        bound = mp.log((1 + theta_tail) / (1 - theta_tail))
        assert bound < PEIKERT_SLACK < 2 * bound


def test_the_slack_grows_with_coordinates_and_rounds() -> None:
    """d·T·(τ + 5·e^(−8π²)), T = 25 rounds, d = 100 coordinates."""
    release = mechanism(noise_std=3, rounds=25)
    with mp.workdps(40):
        per_coordinate = 10 * mp.exp(-9 * mp.pi**2) + 5 * mp.exp(-8 * mp.pi**2)
        assert 2500 * per_coordinate < slack(release, 2) < 2500 * per_coordinate * 1.000001


def test_slack_is_added_twice_to_epsilon_and_once_to_the_exponent_of_delta(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ε' + 2s at δ·e^(−s), visible because the slack is set to 0.01 per coordinate and round."""
    monkeypatch.setattr("governance.budget.accounting.PEIKERT_SLACK", 0.01)
    release = mechanism(dimension=5, rounds=4, noise_std=8_001, scale=1_000)
    ratio = math.sqrt(4 * release.squared_sensitivity / (2 * 8_001**2 - 4))

    def excess(loss: float) -> float:
        upper_tail = norm.cdf(ratio / 2 - loss / ratio)
        return float(upper_tail - math.exp(loss + norm.logcdf(-ratio / 2 - loss / ratio)))

    shift = 4 * 5 * 0.01
    exact = brentq(lambda loss: excess(loss) - DELTA * math.exp(-shift), 0, 20, xtol=1e-12)
    assert exact + 2 * shift <= epsilon([release], 2, DELTA) <= (exact + 2 * shift) * 1.001


def sampled_delta(loss: float, width: float, rate: float) -> float:
    """Return the larger δ of adding and of removing a patient, for a Poisson-sampled Gaussian.

    Adding compares N(0, z²) with the mixture, removing the mixture with N(0, z²). Each δ is
    computed at the point where the densities cross.
    """

    def tails(point: float, *, upper: bool) -> tuple[float, float]:
        tail = norm.sf if upper else norm.cdf
        tail_without, tail_with = tail(point / width), tail((point - 1) / width)
        return float(tail_without), float((1 - rate) * tail_without + rate * tail_with)

    def crossing(ratio: float) -> float:
        return 0.5 + width**2 * math.log((ratio - 1 + rate) / rate)

    tail_without, tail_mixed = tails(crossing(math.exp(loss)), upper=True)
    removing = tail_mixed - math.exp(loss) * tail_without
    if math.exp(-loss) <= 1 - rate:
        return removing
    tail_without, tail_mixed = tails(crossing(math.exp(-loss)), upper=False)
    return max(removing, tail_without - math.exp(loss) * tail_mixed)


@pytest.mark.parametrize("rate", [0.02, 0.125, 0.5, 0.9])
@pytest.mark.parametrize("noise_std", [600, 2_000])
def test_epsilon_of_one_sampled_release_follows_from_its_densities(
    rate: float, noise_std: int
) -> None:
    release = mechanism(sampling_rate=rate, noise_std=noise_std, scale=1_000)
    width = math.sqrt((2 * noise_std**2 - 4) / release.squared_sensitivity)
    exact = brentq(lambda loss: sampled_delta(loss, width, rate) - DELTA, 1e-9, 60, xtol=1e-12)
    assert exact <= epsilon([release], 2, DELTA) <= exact * 1.002 + 1e-6


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("order", [2, 3, 8, 20])
def test_rdp_equals_a_numerical_integral(rate: float, order: int) -> None:
    """The integral of the mixture to the power `order` over N(0, z²), by quadrature."""
    release = mechanism(sampling_rate=rate, noise_std=3_000, scale=1_000, rounds=7)
    width = math.sqrt((2 * 3_000**2 - 4) / release.squared_sensitivity)

    def power(x: float) -> float:
        mixture = 1 - rate + rate * math.exp((2 * x - 1) / (2 * width**2))
        return float(mixture**order * norm.pdf(x, scale=width))

    moment = quad(power, -40 * width, 40 * width + order, epsabs=0, epsrel=1e-12, limit=500)[0]
    exact = 7 * math.log(moment) / (order - 1) * MICRO
    assert exact - 1e-3 <= rdp_micro(release, 2, order) <= exact * (1 + 1e-6) + 1


def test_epsilon_of_two_hundred_sampled_releases_agrees_with_another_accountant() -> None:
    """Opacus's PRV accountant shares no code with ours, and is accurate to 0.01."""
    release = mechanism(sampling_rate=0.1, noise_std=2_000, scale=1_000, rounds=200)
    width = math.sqrt((2 * 2_000**2 - 4) / release.squared_sensitivity)
    accountant = PRVAccountant()
    accountant.history = [(width, 0.1, 200)]
    assert epsilon([release], 2, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), abs=0.02)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9, 1e-10, 1e-12])
@pytest.mark.parametrize("rounds", [1, 30, 3_000, 100_000])
def test_small_deltas_are_not_underestimated(delta: float, rounds: int) -> None:
    """Without the RDP bound the stated ε would be 0.06 % too small at 1e-12 and 3,000 rounds."""
    release = mechanism(rounds=rounds, noise_std=2_000 * math.isqrt(rounds), scale=1_000)
    ratio = math.sqrt(rounds * release.squared_sensitivity / (2 * release.noise_std**2 - 4))

    def excess(loss: float) -> float:
        upper_tail = norm.sf(loss / ratio - ratio / 2)
        return float(upper_tail - math.exp(loss + norm.logcdf(-ratio / 2 - loss / ratio)))

    exact = brentq(lambda loss: excess(loss) - delta, 0, 40, xtol=1e-13)
    assert exact <= epsilon([release], 2, delta) <= exact * (1.01 if delta > 1e-7 else 1.15)


def test_a_cap_is_the_conversion_computed_by_hand() -> None:
    """ε = 3, δ = 1e-4, α = 8: 3 + ln(8/7) + (ln 1e-4 + ln 8)/7 = 2.114832.

    The program's cap may be lower, never higher.
    """
    exact = 3 + math.log(8 / 7) + (math.log(1e-4) + math.log(8)) / 7
    assert exact == pytest.approx(2.114832, abs=1e-6)
    assert exact * MICRO - 2 <= cap_micro(3.0, 1e-4, 8) <= exact * MICRO


def test_wrong_constants_give_other_figures() -> None:
    """With σ² instead of σ² − 4, or C·s instead of Δ, the figures above would differ."""
    release = mechanism(noise_std=3, scale=1, clip_norm=3.0, dimension=4)
    correct = noise_multiplier(release, 2)
    assert correct < 0.9 * math.sqrt(18 / release.squared_sensitivity)
    assert correct < 0.9 * math.sqrt(14) / (release.clip_norm * release.scale)
    assert np.isfinite(correct)
