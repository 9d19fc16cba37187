import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from governance.budget import accounting
from governance.budget.accounting import (
    MICRO,
    calibrate,
    cap_micro,
    epsilon,
    epsilon_of_rdp,
    noise_multiplier,
    rdp_micro,
    slack,
    tau,
)
from governance.errors import LedgerFault
from protocols.numerics.mechanism import Mechanism, Rounding, Scope
from tests.support.ledger_and_log import release
from tests.support.patients import FEATURES, glm

DELTA = 1e-5


def gaussian_delta(loss: float, mu: float) -> float:
    """Balle and Wang 2018, Theorem 8."""
    tail = math.exp(loss + norm.logcdf(-mu / 2 - loss / mu))
    return float(norm.cdf(mu / 2 - loss / mu)) - tail


def gaussian_epsilon(mu: float, delta: float) -> float:
    return float(brentq(lambda loss: gaussian_delta(loss, mu) - delta, 0, 80, xtol=1e-13))


def gaussian_mu(mechanisms: list[Mechanism], honest: int) -> float:
    """The closed form at q = 1, with variance − 4 written out."""
    squares = [m.rounds * m.squared_sensitivity / (m.variance(honest) - 4) for m in mechanisms]
    return math.sqrt(sum(squares))


def exact_tau(noise_std: int, shares: int) -> Decimal:
    pi = Decimal("3.14159265358979323846264338327950288419716939937510")
    with localcontext() as context:
        context.prec, context.Emin = 50, -(10**9)
        variance = Decimal(noise_std) ** 2
        terms = ((-2 * pi**2 * variance * k / (k + 1)).exp() for k in range(1, shares))
        return 10 * sum(terms, Decimal(0))


@pytest.mark.parametrize("noise_std", [3, 4, 5, 6])
@pytest.mark.parametrize("shares", [2, 3, 10, 50])
def test_tau_is_proposition_14_rounded_up(noise_std: int, shares: int) -> None:
    exact = exact_tau(noise_std, shares)
    computed = Decimal(tau(noise_std, shares))
    assert exact < computed < exact * Decimal("1.00001")


@pytest.mark.parametrize("noise_std", [9, 100, 2**40])
def test_tau_never_underflows_to_an_unsafe_zero(noise_std: int) -> None:
    assert tau(noise_std, 2) > 0
    assert Decimal(tau(noise_std, 2)) >= exact_tau(min(noise_std, 1000), 2)


def test_one_share_is_itself_a_discrete_gaussian() -> None:
    assert tau(3, 1) == 0


def test_slack_counts_dimensions_and_rounds_and_is_never_zero() -> None:
    mechanism = release(rounds=1, dimension=1, noise_std=3)
    assert slack(mechanism, 3) >= tau(3, 3) + 4 * math.exp(-8 * math.pi**2) > 0
    many = release(rounds=7, dimension=11, noise_std=3)
    assert slack(many, 3) == pytest.approx(77 * slack(mechanism, 3), rel=1e-6)
    assert slack(release(scope=Scope.LOCAL, noise_std=2**40), 5) > 0


@pytest.fixture
def coarse_slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The true slack is too small to show in a float; a large slack shows where it is used."""
    monkeypatch.setattr(accounting, "PEIKERT_SLACK", 1e-3)
    yield 1e-3
    accounting._schedule_epsilon.cache_clear()


def test_slack_widens_epsilon_twice_and_delta_by_its_exponential(coarse_slack: float) -> None:
    accounting._schedule_epsilon.cache_clear()
    mechanism = release(rounds=5, dimension=20, noise_std=4321)
    whole = 100 * coarse_slack
    mu = gaussian_mu([mechanism], 2)
    exact = gaussian_epsilon(mu, DELTA * math.exp(-whole)) + 2 * whole
    assert exact <= epsilon([mechanism], 2, DELTA) <= exact * 1.001


@pytest.mark.parametrize("order", [2, 8, 64])
def test_slack_widens_rdp_on_both_sides_of_the_ratio(coarse_slack: float, order: int) -> None:
    mechanism = release(rounds=5, dimension=20, noise_std=4321)
    whole = 100 * coarse_slack
    plain = order * gaussian_mu([mechanism], 2) ** 2 / 2
    exact = plain + whole * (order + order - 1) / (order - 1)
    assert exact * MICRO <= rdp_micro(mechanism, 2, order) <= exact * MICRO * (1 + 1e-6) + 1


def test_noise_multiplier_subtracts_a_variance_of_four() -> None:
    mechanism = release(noise_std=3, scale=2, dimension=1, rounding=Rounding.INTEGER)
    assert noise_multiplier(mechanism, 2) == pytest.approx(math.sqrt(18 - 4) / 2, rel=1e-8)
    local = mechanism.model_copy(update={"scope": Scope.LOCAL})
    assert noise_multiplier(local, 2) == pytest.approx(math.sqrt(9 - 4) / 2, rel=1e-8)


def test_sensitivity_is_the_rounded_bound_not_the_clip_times_scale() -> None:
    mechanism = release(dimension=1000, scale=10)
    assert mechanism.sensitivity > mechanism.clip_norm * mechanism.scale
    computed = noise_multiplier(mechanism, 2)
    assert computed == pytest.approx(
        math.sqrt(mechanism.variance(2) - 4) / mechanism.sensitivity, rel=1e-8
    )


@pytest.mark.parametrize("order", [2, 3, 8, 64])
@pytest.mark.parametrize("honest", [2, 5])
def test_rdp_of_a_full_batch_is_the_closed_form_rounded_up(order: int, honest: int) -> None:
    mechanism = release(rounds=13)
    squared = mechanism.squared_sensitivity
    exact = 13 * order * squared / (2 * (honest * mechanism.noise_std**2 - 4)) * MICRO
    assert exact < rdp_micro(mechanism, honest, order) <= exact * (1 + 1e-7) + 1


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("order", [2, 8, 64])
@pytest.mark.parametrize("noise_std", [300, 900, 40_000])
def test_rdp_of_a_poisson_sample_agrees_with_dp_accounting(
    rate: float, order: int, noise_std: int
) -> None:
    mechanism = release(rounds=1000, sampling_rate=rate, noise_std=noise_std)
    accountant = RdpAccountant([order])
    sampled = PoissonSampledDpEvent(rate, GaussianDpEvent(noise_multiplier(mechanism, 2)))
    accountant.compose(SelfComposedDpEvent(sampled, 1000))
    theirs = accountant._rdp[0] * MICRO
    assert theirs * (1 - 1e-6) <= rdp_micro(mechanism, 2, order) <= theirs * (1 + 1e-5) + 1


def test_a_charge_is_never_free() -> None:
    assert rdp_micro(release(noise_std=2**40, rounds=1, scale=1), 5, 2) >= 1
    nothing = release(clip_norm=0.5, scale=1, rounding=Rounding.INTEGER)
    assert nothing.squared_sensitivity == 0
    assert rdp_micro(nothing, 2, 2) >= 1


def test_local_noise_is_accounted_as_one_share() -> None:
    shared, local = release(), release(scope=Scope.LOCAL)
    assert rdp_micro(local, 4, 8) == pytest.approx(4 * rdp_micro(shared, 4, 8), rel=1e-3)
    assert rdp_micro(local, 4, 8) == rdp_micro(local, 2, 8)


# Local mode


def in_local_mode(**changes: Any) -> tuple[Mechanism, ...]:
    """Return the releases of 6 rounds of 4 sampled steps: floor, local steps, sums of updates."""
    task = glm(rounds=6, sampling_rate=0.1, local={"steps": 4}, evaluation=None, **changes)
    return task.schedule(FEATURES)


@pytest.mark.parametrize("honest", [1, 2, 5])
def test_a_study_in_local_mode_costs_its_steps_at_one_share_and_nothing_else(honest: int) -> None:
    _, template, update = in_local_mode()
    step = template.model_copy(update={"noise_std": 900})
    multiplier = math.sqrt(900**2 - 4) / step.sensitivity
    event = PoissonSampledDpEvent(0.1, GaussianDpEvent(multiplier))
    theirs = RdpAccountant([8])
    theirs.compose(SelfComposedDpEvent(event, 6 * 4))
    micro = sum(rdp_micro(mechanism, honest, 8) for mechanism in (step, update))
    assert micro == pytest.approx(theirs._rdp[0] * MICRO, rel=1e-5, abs=1)
    convolved = pld.from_gaussian_mechanism(
        multiplier, sampling_prob=0.1, value_discretization_interval=1e-4
    ).self_compose(24)
    exact = convolved.get_epsilon_for_delta(DELTA)
    assert epsilon([step, update], honest, DELTA) == pytest.approx(exact, rel=2e-3)


def test_more_honest_countries_make_local_steps_no_cheaper() -> None:
    schedule = [m.model_copy(update={"noise_std": 900}) for m in in_local_mode() if m.costs]
    assert epsilon(schedule, 1, DELTA) == epsilon(schedule, 50, DELTA)


def test_calibration_gives_the_part_of_derived_releases_to_the_local_steps() -> None:
    schedule = in_local_mode()
    floor, step, update = calibrate(schedule, [0.05, 0.95, 0.0], 2, 1.0, DELTA)
    assert update == schedule[2]
    assert (floor, step) == calibrate(schedule[:2], [0.05, 0.95], 2, 1.0, DELTA)
    assert 0.995 < epsilon([floor, step, update], 2, DELTA) <= 1.0
    shared = schedule[1].model_copy(update={"scope": Scope.SHARED})
    (_, together) = calibrate([schedule[0], shared], [0.05, 0.95], 2, 1.0, DELTA)
    assert step.noise_std / together.noise_std == pytest.approx(math.sqrt(2), rel=2e-2)


@pytest.mark.parametrize("shares", [(0.1, 0.8, 0.1), (0.2, 0.0, 0.8), (0.0, 1.0, 0.0)])
def test_only_releases_that_cost_have_a_share_of_the_budget(
    shares: tuple[float, ...],
) -> None:
    with pytest.raises(LedgerFault, match="or 0 if it is derived"):
        calibrate(in_local_mode(), shares, 2, 1.0, DELTA)


def test_a_schedule_of_derived_releases_only_is_refused() -> None:
    (update,) = in_local_mode()[2:]
    with pytest.raises(LedgerFault, match="A schedule without releases"):
        epsilon([update], 2, DELTA)
    with pytest.raises(LedgerFault, match="A schedule without releases"):
        calibrate([update], [0], 2, 1.0, DELTA)


@pytest.mark.parametrize(
    ("rounds", "noise_std"),
    [(1, 300), (1, 2000), (1, 100_000), (20, 2000), (20, 100_000), (3000, 20_000), (3000, 10**6)],
)
def test_epsilon_of_full_batches_is_the_analytic_gaussian_and_never_below(
    rounds: int, noise_std: int
) -> None:
    mechanism = release(rounds=rounds, noise_std=noise_std)
    exact = gaussian_epsilon(gaussian_mu([mechanism], 2), DELTA)
    assert exact <= epsilon([mechanism], 2, DELTA) <= exact * 1.002 + 1e-9


def test_epsilon_composes_different_releases() -> None:
    schedule = [
        release(rounds=30, noise_std=9000),
        release(phase="evaluate", rounds=1, noise_std=2500),
        release(phase="cohort-floor", rounds=1, scope=Scope.LOCAL, noise_std=5000),
    ]
    exact = gaussian_epsilon(
        math.sqrt(
            gaussian_mu(schedule[:2], 3) ** 2 + schedule[2].squared_sensitivity / (5000**2 - 4)
        ),
        DELTA,
    )
    assert exact <= epsilon(schedule, 3, DELTA) <= exact * 1.002


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_epsilon_of_poisson_samples_lies_between_optimistic_pld_and_rdp(rate: float) -> None:
    mechanism = release(rounds=200, sampling_rate=rate, noise_std=1500)
    lowest = pld.from_gaussian_mechanism(
        noise_multiplier(mechanism, 2),
        sampling_prob=rate,
        pessimistic_estimate=False,
        use_connect_dots=False,
        value_discretization_interval=1e-5,
    )
    below = lowest.self_compose(200).get_epsilon_for_delta(DELTA)
    above = min(
        epsilon_of_rdp(rdp_micro(mechanism, 2, order), DELTA, order) for order in range(2, 200)
    )
    stated = epsilon([mechanism], 2, DELTA)
    assert below <= stated < above
    assert stated < below * 1.01


def test_a_useless_epsilon_is_bounded_without_convolving() -> None:
    stated = epsilon([release(rounds=100_000, noise_std=300)], 2, DELTA)
    assert 100 < stated < math.inf


def opened_law(noise_std: int, honest: int) -> np.ndarray:
    """Return the exact law of the sum of `honest` discrete Gaussians, on −reach … reach."""
    reach = 40 * noise_std
    points = np.arange(-reach, reach + 1)
    law = share = np.exp(-(points**2) / (2 * noise_std**2))
    for _ in range(honest - 1):
        law = np.convolve(law, share)
    normalised: np.ndarray = law / law.sum()
    return normalised


def hockey_stick(law: np.ndarray, shift: int, loss: float) -> float:
    moved = np.concatenate([np.zeros(shift), law])
    still = np.concatenate([law, np.zeros(shift)])
    return float(np.maximum(moved - math.exp(loss) * still, 0).sum())


@pytest.mark.parametrize("honest", [1, 2, 3])
@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-6])
def test_stated_epsilon_dominates_the_exact_law_of_the_opened_sum(
    honest: int, delta: float
) -> None:
    mechanism = release(rounds=1, dimension=1, scale=4, noise_std=3, rounding=Rounding.INTEGER)
    law = opened_law(3, honest)
    stated = epsilon([mechanism], honest, delta)
    assert hockey_stick(law, 4, stated) <= delta


def test_the_continuous_law_at_the_full_variance_would_not_dominate() -> None:
    """The reason for variance − 4: a continuous PLD at σ² states less than the real loss."""
    law, mu = opened_law(3, 2), 4 / math.sqrt(18)
    losses = np.linspace(0.5, 3, 500)
    assert any(hockey_stick(law, 4, loss) > gaussian_delta(loss, mu) * 1.01 for loss in losses)


@pytest.mark.parametrize("honest", [1, 2, 3])
@pytest.mark.parametrize("order", [2, 8, 32])
def test_charged_rdp_dominates_the_exact_law_of_the_opened_sum(honest: int, order: int) -> None:
    mechanism = release(rounds=1, dimension=1, scale=4, noise_std=3, rounding=Rounding.INTEGER)
    law = opened_law(3, honest)
    moved, still = law[:-4], law[4:]
    inside = (moved > 1e-290) & (still > 1e-290)
    logs = order * np.log(moved[inside]) + (1 - order) * np.log(still[inside])
    exact = float(np.logaddexp.reduce(logs)) / (order - 1)
    assert exact * MICRO <= rdp_micro(mechanism, honest, order) <= exact * MICRO * 2


@pytest.mark.parametrize(("target", "delta"), [(0.1, 1e-4), (1.0, 1e-4), (8.0, 1e-6)])
@pytest.mark.parametrize("honest", [1, 2, 4])
@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_calibrated_noise_meets_the_target_tightly_and_never_passes_it(
    target: float, delta: float, honest: int, rate: float
) -> None:
    schedule = [
        release(rounds=150, sampling_rate=rate, scale=20_000),
        release(phase="evaluate", rounds=1, scale=2000, rounding=Rounding.INTEGER),
    ]
    calibrated = calibrate(schedule, [0.8, 0.2], honest, target, delta)
    assert target * 0.995 <= epsilon(calibrated, honest, delta) <= target
    unchanged = [each.model_copy(update={"noise_std": 4000}) for each in calibrated]
    assert unchanged == schedule


def test_shares_split_the_squared_central_limit_parameter() -> None:
    schedule = [release(rounds=100), release(phase="evaluate", rounds=1)]
    calibrated = calibrate(schedule, [3, 1], 2, 1.0, DELTA)
    squares = [gaussian_mu([each], 2) ** 2 for each in calibrated]
    assert squares[0] / squares[1] == pytest.approx(3, rel=0.01)


def test_calibration_stops_at_the_least_noise_that_is_exact() -> None:
    tiny = release(rounds=1, scale=1, dimension=1, rounding=Rounding.INTEGER)
    (calibrated,) = calibrate([tiny], [1], 3, 5.0, DELTA)
    assert calibrated.noise_std == 3
    assert epsilon([calibrated], 3, DELTA) <= 5.0


def test_calibration_on_a_coarse_lattice_stays_below_the_target() -> None:
    coarse = release(rounds=4, scale=2, dimension=2)
    (calibrated,) = calibrate([coarse], [1], 2, 1.5, DELTA)
    finer = calibrated.model_copy(update={"noise_std": calibrated.noise_std - 1})
    assert epsilon([calibrated], 2, DELTA) <= 1.5 < epsilon([finer], 2, DELTA)


def test_noise_too_wide_for_any_lane_is_refused() -> None:
    vast = release(rounds=100_000, scale=2**24, clip_norm=1e6)
    with pytest.raises(LedgerFault, match="No noise"):
        calibrate([vast], [1], 2, 1e-6, 1e-12)


@pytest.mark.parametrize(("order", "target"), [(4, 8.0), (8, 2.0), (8, 8.0), (32, 0.5)])
def test_a_full_cap_implies_the_agreements_epsilon_and_no_more(order: int, target: float) -> None:
    cap = cap_micro(target, 1e-3, order)
    assert target * (1 - 1e-5) <= epsilon_of_rdp(cap, 1e-3, order) <= target
    assert epsilon_of_rdp(cap + 10, 1e-3, order) > target


def test_cap_is_the_conversion_of_canonne_kamath_steinke() -> None:
    order, delta = 16, 1e-6
    cap = cap_micro(3.0, delta, order) / MICRO
    converted = (
        cap + math.log((order - 1) / order) - (math.log(delta) + math.log(order)) / (order - 1)
    )
    assert converted == pytest.approx(3.0, abs=2e-6)


def test_order_too_low_for_the_budget_is_refused() -> None:
    with pytest.raises(LedgerFault, match="higher order"):
        cap_micro(0.1, 1e-9, 2)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_delta_must_be_a_probability(delta: float) -> None:
    with pytest.raises(LedgerFault, match="δ"):
        epsilon([release()], 2, delta)
    with pytest.raises(LedgerFault, match="δ"):
        cap_micro(1.0, delta, 8)
    with pytest.raises(LedgerFault, match="δ"):
        calibrate([release()], [1], 2, 1.0, delta)


def test_senseless_parameters_are_refused() -> None:
    with pytest.raises(LedgerFault, match="order"):
        rdp_micro(release(), 2, 1)
    with pytest.raises(LedgerFault, match="honest"):
        rdp_micro(release(), 0, 2)
    with pytest.raises(LedgerFault, match="honest"):
        epsilon([release()], 0, DELTA)
    with pytest.raises(LedgerFault, match="without releases"):
        epsilon([], 2, DELTA)
    with pytest.raises(LedgerFault, match="above 0"):
        calibrate([release()], [1], 2, 0.0, DELTA)


@pytest.mark.parametrize("shares", [[], [1, 1], [0], [-1], [math.nan]])
def test_each_release_needs_a_share(shares: list[float]) -> None:
    with pytest.raises(LedgerFault, match="share"):
        calibrate([release()], shares, 2, 1.0, DELTA)
