"""Each step of the accounting against figures computed here by independent means.

In the order of the noise section of the protocol's design: Δ after rounding, σ² − 4, τ and the step
from continuous to discrete, 2τd and e^(τd), Poisson samples.
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


def released(**changes: object) -> Mechanism:
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


def test_the_sensitivity_is_that_after_rounding() -> None:
    """60² + 100/4 + (60 + 10/2) = 3690; the clipped norm alone would give 3600."""
    assert released().squared_sensitivity == 3690
    assert released(rounding=Rounding.INTEGER).squared_sensitivity == 3600


@pytest.mark.parametrize(
    ("honest", "scope", "exact"),
    [
        (2, Scope.SHARED, 0.69765),
        (3, Scope.SHARED, 0.85477),
        (3, Scope.LOCAL, 0.49277),
    ],
)
def test_the_multiplier_has_four_units_less_of_variance(
    honest: int, scope: Scope, exact: float
) -> None:
    """The value is √((h·900 − 4)/3690)."""
    computed = noise_multiplier(released(scope=scope), honest)
    assert computed == pytest.approx(exact, abs=1e-5)
    assert computed < math.sqrt((honest if scope is Scope.SHARED else 1) * 900 / 3690)


def discrete(std: int, reach: int) -> list[mpf]:
    weights = [mp.exp(-mpf(v * v) / (2 * std * std)) for v in range(-reach, reach + 1)]
    total = mpmath.fsum(weights)
    return [weight / total for weight in weights]


def convolved(one: list[mpf], other: list[mpf], places: range) -> list[mpf]:
    """Return the law of a sum at some places; both laws are centred."""
    a, b = len(one) // 2, len(other) // 2
    return [
        mpmath.fsum(one[v + a] * other[p - v + b] for v in range(-a, a + 1) if -b <= p - v <= b)
        for p in places
    ]


@pytest.mark.parametrize("std", [1, 2, 3])
def test_two_shares_differ_from_one_by_tau(std: int) -> None:
    """Densities to 60 digits: within e^(±τ), and not a thousand times nearer.

    Two shares against one of twice the variance, where √2·std is not a whole number.
    """
    with mp.workdps(60):
        reach, places = 40 * std, range(-4 * std, 4 * std + 1)
        both = convolved(discrete(std, reach), discrete(std, reach), places)
        weights = [mp.exp(-mpf(v * v) / (4 * std * std)) for v in range(-reach, reach + 1)]
        alone = [weights[v + reach] / mpmath.fsum(weights) for v in places]
        furthest = max(abs(mp.log(x / y)) for x, y in zip(both, alone, strict=True))
        assert mpf(tau(std, 2)) / 1000 < furthest <= tau(std, 2)


def test_more_shares_add_their_terms() -> None:
    """τ = 10·Σ e^(−2π²·9·k/(k+1)): at 3 units and 4 shares about 2.6e-38."""
    with mp.workdps(40):
        terms = [mp.exp(-18 * mp.pi**2 * mpf(k) / (k + 1)) for k in (1, 2, 3)]
        exact = 10 * mpmath.fsum(terms)
    assert float(exact) == pytest.approx(2.6236e-38, rel=1e-4)
    assert exact < tau(3, 4) < exact * 1.000001


@pytest.mark.parametrize(("variance", "place"), [(9, 0), (18, 1)])
def test_a_continuous_gaussian_rounded_at_random_is_the_discrete_one(
    variance: int, place: int
) -> None:
    """The step of Peikert 2010 by an integral to 40 digits: N(0, σ² − 4), then D around it.

    The probability of `place` against that of the discrete Gaussian of variance σ².
    """
    with mp.workdps(40):
        chance = rounded_chance(variance - 4, place)
        weights = [mp.exp(-mpf(v * v) / (2 * variance)) for v in range(-110, 111)]
        exact = weights[place + 110] / mpmath.fsum(weights)
        assert abs(mp.log(chance / exact)) <= PEIKERT_SLACK


def rounded_chance(narrow: int, place: int, unit: int = 4) -> mpf:
    """Return the probability that N(0, narrow), rounded by a discrete Gaussian, gives `place`.

    The discrete Gaussian has variance `unit` and is centred on the value. The trapezium rule is
    exact to these digits for such a smooth function.
    """

    def density(where: mpf) -> mpf:
        middle = math.floor(where)
        near = range(middle - 45, middle + 46)
        total = mpmath.fsum(mp.exp(-((v - where) ** 2) / (2 * unit)) for v in near)
        chance = mp.exp(-((place - where) ** 2) / (2 * unit)) / total
        return mp.exp(-(where**2) / (2 * mpf(narrow))) * chance

    step, ends = mpf(1) / 12, 12 * 55
    whole = mp.sqrt(2 * mp.pi * narrow)
    return step * mpmath.fsum(density(step * n) for n in range(-ends, ends + 1)) / whole


def test_the_integral_detects_a_narrower_rounding() -> None:
    """With a variance of 1 instead of 4 the two laws differ by 1e-17, not by 1e-34."""
    with mp.workdps(30):
        chance = rounded_chance(8, 1, unit=1)
        weights = [mp.exp(-mpf(v * v) / 18) for v in range(-110, 111)]
        apart = abs(mp.log(chance / (weights[111] / mpmath.fsum(weights))))
        assert 1e-18 < apart <= 5 * mp.exp(-2 * mp.pi**2)


def test_the_bound_of_that_step_is_the_theta_function_s() -> None:
    """Σ over integers of e^(−(v−x)²/8) is √(8π)·(1 + 2·Σ e^(−8π²m²)·cos 2πmx)."""
    with mp.workdps(60):
        wave = 2 * mpmath.fsum(mp.exp(-8 * mp.pi**2 * m * m) for m in (1, 2, 3))
        assert mp.log((1 + wave) / (1 - wave)) < PEIKERT_SLACK < 2 * mp.log((1 + wave) / (1 - wave))


def test_the_slack_grows_with_coordinates_and_rounds() -> None:
    """d·T·(τ + 5·e^(−8π²)), T = 25 rounds of d = 100."""
    release = released(noise_std=3, rounds=25)
    with mp.workdps(40):
        each = 10 * mp.exp(-9 * mp.pi**2) + 5 * mp.exp(-8 * mp.pi**2)
        assert 2500 * each < slack(release, 2) < 2500 * each * 1.000001


def test_slack_goes_twice_into_epsilon_and_once_into_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    """ε' + 2s at δ·e^(−s), visible because the slack is set to 0.01 a coordinate and round."""
    monkeypatch.setattr("governance.budget.accounting.PEIKERT_SLACK", 0.01)
    release = released(dimension=5, rounds=4, noise_std=8_001, scale=1_000)
    ratio = math.sqrt(4 * release.squared_sensitivity / (2 * 8_001**2 - 4))

    def excess(loss: float) -> float:
        above = norm.cdf(ratio / 2 - loss / ratio)
        return float(above - math.exp(loss + norm.logcdf(-ratio / 2 - loss / ratio)))

    shift = 4 * 5 * 0.01
    exact = brentq(lambda loss: excess(loss) - DELTA * math.exp(-shift), 0, 20, xtol=1e-12)
    assert exact + 2 * shift <= epsilon([release], 2, DELTA) <= (exact + 2 * shift) * 1.001


def sampled_delta(loss: float, width: float, rate: float) -> float:
    """Return δ of one Poisson-sampled Gaussian in its worse direction, from where densities cross.

    Adding: N(0, z²) against the mixture; removing: the mixture against N(0, z²).
    """

    def mass(edge: float, *, above: bool) -> tuple[float, float]:
        tail = norm.sf if above else norm.cdf
        still, moved = tail(edge / width), tail((edge - 1) / width)
        return float(still), float((1 - rate) * still + rate * moved)

    def crossing(ratio: float) -> float:
        return 0.5 + width**2 * math.log((ratio - 1 + rate) / rate)

    still, mixed = mass(crossing(math.exp(loss)), above=True)
    removing = mixed - math.exp(loss) * still
    if math.exp(-loss) <= 1 - rate:
        return removing
    still, mixed = mass(crossing(math.exp(-loss)), above=False)
    return max(removing, still - math.exp(loss) * mixed)


@pytest.mark.parametrize("rate", [0.02, 0.125, 0.5, 0.9])
@pytest.mark.parametrize("noise_std", [600, 2_000])
def test_one_sampled_release_costs_what_its_densities_give(rate: float, noise_std: int) -> None:
    release = released(sampling_rate=rate, noise_std=noise_std, scale=1_000)
    width = math.sqrt((2 * noise_std**2 - 4) / release.squared_sensitivity)
    exact = brentq(lambda loss: sampled_delta(loss, width, rate) - DELTA, 1e-9, 60, xtol=1e-12)
    assert exact <= epsilon([release], 2, DELTA) <= exact * 1.002 + 1e-6


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("order", [2, 3, 8, 20])
def test_rdp_is_that_of_the_densities(rate: float, order: int) -> None:
    """The integral of the mixture's power against N(0, z²), by quadrature."""
    release = released(sampling_rate=rate, noise_std=3_000, scale=1_000, rounds=7)
    width = math.sqrt((2 * 3_000**2 - 4) / release.squared_sensitivity)

    def power(x: float) -> float:
        mixture = 1 - rate + rate * math.exp((2 * x - 1) / (2 * width**2))
        return float(mixture**order * norm.pdf(x, scale=width))

    moment = quad(power, -40 * width, 40 * width + order, epsabs=0, epsrel=1e-12, limit=500)[0]
    exact = 7 * math.log(moment) / (order - 1) * MICRO
    assert exact - 1e-3 <= rdp_micro(release, 2, order) <= exact * (1 + 1e-6) + 1


def test_two_hundred_sampled_releases_cost_what_another_accountant_states() -> None:
    """Opacus's PRV accountant shares no line with ours, and is accurate to 0.01."""
    release = released(sampling_rate=0.1, noise_std=2_000, scale=1_000, rounds=200)
    width = math.sqrt((2 * 2_000**2 - 4) / release.squared_sensitivity)
    other = PRVAccountant()
    other.history = [(width, 0.1, 200)]
    assert epsilon([release], 2, DELTA) == pytest.approx(other.get_epsilon(DELTA), abs=0.02)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9, 1e-10, 1e-12])
@pytest.mark.parametrize("rounds", [1, 30, 3_000, 100_000])
def test_small_deltas_are_not_lost_to_the_convolution(delta: float, rounds: int) -> None:
    """At 1e-12 and 3,000 rounds the stated ε was 0.06 % too small; RDP bounds it in such cases."""
    release = released(rounds=rounds, noise_std=2_000 * math.isqrt(rounds), scale=1_000)
    ratio = math.sqrt(rounds * release.squared_sensitivity / (2 * release.noise_std**2 - 4))

    def excess(loss: float) -> float:
        above = norm.sf(loss / ratio - ratio / 2)
        return float(above - math.exp(loss + norm.logcdf(-ratio / 2 - loss / ratio)))

    exact = brentq(lambda loss: excess(loss) - delta, 0, 40, xtol=1e-13)
    assert exact <= epsilon([release], 2, delta) <= exact * (1.01 if delta > 1e-7 else 1.15)


def test_a_cap_is_the_conversion_computed_by_hand() -> None:
    """ε = 3, δ = 1e-4, α = 8: 3 + ln(8/7) + (ln 1e-4 + ln 8)/7 = 2.114832, and no more."""
    exact = 3 + math.log(8 / 7) + (math.log(1e-4) + math.log(8)) / 7
    assert exact == pytest.approx(2.114832, abs=1e-6)
    assert exact * MICRO - 2 <= cap_micro(3.0, 1e-4, 8) <= exact * MICRO


def test_wrong_constants_give_other_figures() -> None:
    """The figures above are not coincidences: with σ² for σ² − 4, or C·s for Δ, they differ."""
    release = released(noise_std=3, scale=1, clip_norm=3.0, dimension=4)
    right = noise_multiplier(release, 2)
    assert right < 0.9 * math.sqrt(18 / release.squared_sensitivity)
    assert right < 0.9 * math.sqrt(14) / (release.clip_norm * release.scale)
    assert np.isfinite(right)
