"""The privacy cost of a release: RDP at one order for the ledger, PLD for the ε of a schedule.

The noise of a release is the sum of h exact discrete Gaussians of variance noise_std². Three steps
lead from it to known formulas; the first two change the density a little (private-sum.md, Noise):

1. from the sum to one discrete Gaussian of variance σ² = h·noise_std²: a factor within e^(±τ) for
   each coordinate (Kairouz, Liu, Steinke 2021, Proposition 14);
2. from that discrete Gaussian to a continuous one of variance σ² − 4, rounded at random
   (Peikert 2010): a factor within e^(±5·e^(−8π²)) for each coordinate;
3. the continuous Gaussian at sensitivity Δ, Poisson-subsampled, has closed forms.

What is derived from releases (`Scope.DERIVED`) costs nothing more: it is post-processing. How the
costs of releases from different patients add up is in `governance.budget.composition`.

A release in d dimensions is thus within e^(±slack) of step 3, slack = d·(τ + 5·e^(−8π²)): ε grows
by 2·slack and δ by the factor e^slack. Every figure is rounded towards more privacy loss.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from pydantic import ValidationError

from governance.errors import LedgerFault
from governance.runtime.wording import exact
from protocols.numerics.mechanism import SMALLEST_NOISE_STD, Mechanism

MICRO = 1_000_000
"""Micro-units in one unit of RDP."""
PEIKERT_VARIANCE = 4
"""Variance, in squared lattice units, of the random rounding in step 2."""
PEIKERT_SLACK = 5 * math.exp(-2 * math.pi**2 * PEIKERT_VARIANCE)
"""Log-density error of step 2 per coordinate: twice 2·e^(−8π²)/(1 − 2·e^(−8π²)), rounded up."""
TAU_FACTOR = 10
ROUNDING = 1e-9
"""Relative margin for the floating-point error of closed forms, always towards more loss."""
PLD_ROUNDING = 1e-6
"""The same margin for convolved distributions."""
CONVOLVING = 2.0**-48
"""Probability that one convolved round may lose by floating point: 80 times the largest seen."""
LARGEST_LOSS = 0.01
"""Part of δ that may be lost in convolving; above it, the bound by RDP is used."""
COARSEST_INTERVAL, FINEST_INTERVAL = 1e-2, 1e-7
SMALLEST_EPSILON = 1e-9
"""Below it the formulas lose their precision, and no noise of a lattice would be enough."""
RDP_ORDERS = (*range(2, 65), 96, 128, 192, 256, 384, 512)
USELESS_EPSILON = 100.0
"""Above it the cheaper bound by RDP is stated: such an ε protects nobody; convolving is slow."""
AIM = 0.999
"""Calibration aims at this part of the target, so that its last step stays below the target."""
FINEST_STEP = 2e-4
"""Relative step of the central limit's μ at which calibration stops."""


def _up(value: float, margin: float = ROUNDING) -> float:
    """Round up: a value that underflowed to 0 becomes the least number above it."""
    return math.nextafter(value * (1 + margin), math.inf)


def tau(noise_std: int, shares: int) -> float:
    """Return τ of Kairouz, Liu, Steinke 2021, Proposition 14, rounded up: 0 for one share only.

    τ = 10·Σ_{k=1}^{shares−1} e^(−2π²·noise_std²·k/(k+1)); never 0 by underflow.
    """
    exponents = (2 * math.pi**2 * noise_std**2 * k / (k + 1) for k in range(1, shares))
    terms = [_up(math.exp(-x * (1 - ROUNDING))) for x in exponents]
    return _up(TAU_FACTOR * math.fsum(terms)) if terms else 0.0


def slack(mechanism: Mechanism, honest: int) -> float:
    """Return the log-density slack of all rounds together, rounded up (greater than 0)."""
    shares = mechanism.variance(honest) // mechanism.noise_std**2
    each = _up(tau(mechanism.noise_std, shares) + PEIKERT_SLACK)
    return _up(mechanism.rounds * mechanism.dimension * each)


def noise_multiplier(mechanism: Mechanism, honest: int) -> float:
    """Return √(σ² − 4)/Δ: the multiplier of the Gaussian of step 3, rounded down."""
    sensitivity = max(1, mechanism.squared_sensitivity)
    ratio = (mechanism.variance(honest) - PEIKERT_VARIANCE) / sensitivity
    return math.sqrt(ratio) * (1 - ROUNDING)


def _gaussian_rdp(multiplier: float, rate: float, order: int) -> float:
    """RDP of the Poisson-subsampled Gaussian (Mironov, Talwar, Zhang 2019, Section 3.3).

    Binomial weights add up to 1, so only the excess over 1 is summed: small rates stay exact.
    """
    if rate == 1:
        return order / (2 * multiplier**2)
    from scipy.special import gammaln  # noqa: PLC0415 (slow; few commands need it)

    k = np.arange(2, order + 1)
    exponent = k * (k - 1) / (2 * multiplier**2)
    excess = exponent + np.log(-np.expm1(-exponent))
    choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    weight = choose + k * math.log(rate) + (order - k) * math.log1p(-rate)
    return float(np.logaddexp(0, np.logaddexp.reduce(weight + excess))) / (order - 1)


def _rdp(mechanism: Mechanism, honest: int, order: int) -> float:
    """Return the RDP of all rounds; a density within e^(±s) adds s·(2α − 1)/(α − 1)."""
    multiplier = noise_multiplier(mechanism, honest)
    rounds = mechanism.rounds * _gaussian_rdp(multiplier, mechanism.sampling_rate, order)
    return _up(_up(rounds) + slack(mechanism, honest) * (2 * order - 1) / (order - 1))


def rdp_micro(mechanism: Mechanism, honest: int, order: int) -> int:
    """Return the RDP of all rounds at `order`, in micro-units, rounded up; 0 if it is derived.

    Raises LedgerFault if the order is below 2 or `honest` below 1.
    """
    _require_order(order)
    _require_honest(honest)
    return math.ceil(_rdp(mechanism, honest, order) * MICRO) if mechanism.costs else 0


def _conversion(delta: float, order: int) -> float:
    """ε − RDP at this order (Canonne, Kamath, Steinke 2020, Proposition 12)."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def cap_micro(epsilon: float, delta: float, order: int) -> int:
    """Return the most RDP at `order`, in micro-units, that implies (ε, δ); rounded down.

    Conversion: Canonne, Kamath, Steinke 2020, Proposition 12. Raises LedgerFault if no RDP at
    this order implies (ε, δ).
    """
    _require_order(order)
    _require_delta(delta)
    cap = epsilon - _conversion(delta, order)
    if not 0 < cap < math.inf:
        raise LedgerFault(
            f"No budget fits ε = {exact(epsilon)} and δ = {exact(delta)} at order {order}",
            why="at this order even an empty ledger implies a larger ε",
            fix="choose a higher order in the agreement",
        )
    return math.floor(cap * MICRO * (1 - ROUNDING))


def epsilon_of_rdp(micro: int, delta: float, order: int) -> float:
    """Return the ε at δ that a ledger's sum, `micro` units of RDP at `order`, implies."""
    _require_order(order)
    _require_delta(delta)
    return max(0.0, _up(micro / MICRO + _conversion(delta, order)))


def epsilon(mechanisms: Sequence[Mechanism], honest: int, delta: float) -> float:
    """Return ε at δ of the whole schedule, by privacy loss distributions, rounded up.

    Adjacency: one patient added or removed in one country. Cached. Raises LedgerFault on an empty
    schedule or a δ outside (0, 1).
    """
    _require_delta(delta)
    _require_honest(honest)
    paid = tuple(mechanism for mechanism in mechanisms if mechanism.costs)
    _require_releases(paid)
    return _schedule_epsilon(paid, honest, delta)


@lru_cache(maxsize=512)
def _schedule_epsilon(mechanisms: tuple[Mechanism, ...], honest: int, delta: float) -> float:
    total = _up(math.fsum(slack(mechanism, honest) for mechanism in mechanisms))
    ideal = _ideal_epsilon(mechanisms, honest, delta * math.exp(-total) * (1 - ROUNDING))
    return _up(ideal + 2 * total)


def _ideal_epsilon(mechanisms: tuple[Mechanism, ...], honest: int, delta: float) -> float:
    """Return ε of the continuous Gaussians of step 3.

    It is the bound by RDP if ε protects nobody, or δ is too small for the error of convolving.
    """
    rough = _rough_epsilon(mechanisms, honest, delta)
    rounds = sum(mechanism.rounds for mechanism in mechanisms)
    lost = rounds * CONVOLVING
    if rough > USELESS_EPSILON or lost > LARGEST_LOSS * delta:
        return rough
    interval = _interval(rough, rounds)
    losses = [_loss(mechanism, honest, interval) for mechanism in mechanisms]
    total = reduce(lambda sum_, loss: sum_.compose(loss), losses)
    return _up(float(total.get_epsilon_for_delta(delta - lost)), PLD_ROUNDING)


def _loss(mechanism: Mechanism, honest: int, interval: float) -> Any:
    """Return the pessimistic privacy loss distribution of all rounds (Doroshenko et al. 2022)."""
    from dp_accounting.pld import privacy_loss_distribution  # noqa: PLC0415 (slow; few commands need it)

    once = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier(mechanism, honest),
        value_discretization_interval=interval,
        sampling_prob=mechanism.sampling_rate,
    )
    return once if mechanism.rounds == 1 else once.self_compose(mechanism.rounds)


def _rough_epsilon(mechanisms: Sequence[Mechanism], honest: int, delta: float) -> float:
    """Return ε by RDP at the best order: an upper bound, about 10 % too high."""
    return min(_rdp_epsilon(mechanisms, honest, delta, order) for order in RDP_ORDERS)


def _rdp_epsilon(mechanisms: Sequence[Mechanism], honest: int, delta: float, order: int) -> float:
    spent = math.fsum(_rdp(mechanism, honest, order) for mechanism in mechanisms)
    return spent + max(0.0, _conversion(delta, order))


def _interval(rough: float, rounds: int) -> float:
    """Return the step of the loss grid; its error, rounds·(interval/ε)², is about 1e-4 of ε."""
    wanted = min(rough * math.sqrt(1e-4 / rounds), 1e-4 * max(1.0, rough))
    return min(max(wanted, FINEST_INTERVAL), COARSEST_INTERVAL)


def calibrate(
    mechanisms: Sequence[Mechanism],
    shares: Sequence[float],
    honest: int,
    epsilon: float,
    delta: float,
) -> tuple[Mechanism, ...]:
    """Set the noise of a schedule: integer `noise_std`s with a PLD ε at or just below `epsilon`.

    `shares` divide the budget among the mechanisms in proportion. They divide the square of the
    central limit's μ, which adds up over a composition (Dong, Roth, Su 2022); ε does not. A derived
    release has a share of 0 and is not changed. Cached.
    The resulting ε is within 0.5 % of the target if the lattice is fine enough (a noise_std of
    some hundred units). Raises LedgerFault if no noise is enough.
    """
    _require_delta(delta)
    _require_honest(honest)
    paid = tuple(mechanism for mechanism in mechanisms if mechanism.costs)
    _require_releases(paid)
    _require_shares(mechanisms, shares)
    if not 0 < epsilon < math.inf:
        raise LedgerFault(f"ε must be a number above 0, not {epsilon}")
    if epsilon < SMALLEST_EPSILON:
        raise LedgerFault(
            f"No noise protects a sum with ε = {exact(epsilon)}",
            why=f"the smallest ε that can be computed is {exact(SMALLEST_EPSILON)}",
            fix="ask for a larger ε",
        )
    parts = tuple(share / math.fsum(shares) for share in shares if share)
    noisy = iter(_calibrated(paid, parts, honest, epsilon, delta))
    return tuple(next(noisy) if mechanism.costs else mechanism for mechanism in mechanisms)


@lru_cache(maxsize=128)
def _calibrated(
    mechanisms: tuple[Mechanism, ...],
    parts: tuple[float, ...],
    honest: int,
    target: float,
    delta: float,
) -> tuple[Mechanism, ...]:
    from scipy.optimize import brentq  # noqa: PLC0415 (slow; few commands need it)

    def at(log_mu: float) -> tuple[Mechanism, ...]:
        return _with_central_limit(mechanisms, parts, honest, math.exp(log_mu))

    def cost(log_mu: float) -> float:
        return _schedule_epsilon(at(log_mu), honest, delta)

    low = high = math.log(_gaussian_mu(target, delta))
    step = 0.1
    while cost(low) > AIM * target:
        low, step = low - step, 2 * step
    while cost(high) <= AIM * target:
        if _has_least_noise(at(high)):
            return at(high)
        high, step = high + step, 2 * step
    solution = brentq(lambda x: math.log(cost(x) / (AIM * target)), low, high, xtol=FINEST_STEP)
    return at(_last_safe(cost, float(solution), target))


@lru_cache(maxsize=32)
def with_least_noise(mechanism: Mechanism, honest: int, epsilon: float, delta: float) -> Mechanism:
    """Return the mechanism with the least noise whose ε at δ, by RDP, is at most `epsilon`.

    RDP states up to 10 % more than the mechanism loses, and needs no convolution, so every party
    computes the same noise at once. Raises LedgerFault if no noise is enough.
    """
    _require_delta(delta)
    _require_honest(honest)

    def loss(std: int) -> float:
        return _rough_epsilon([_with_std(mechanism, std)], honest, delta)

    high = SMALLEST_NOISE_STD
    while loss(high) > epsilon:
        high *= 2
    candidates = range(SMALLEST_NOISE_STD, high + 1)
    least = bisect_left(candidates, -epsilon, key=lambda std: -loss(std))
    return _with_std(mechanism, candidates[least])


def _last_safe(cost: Callable[[float], float], log_mu: float, target: float) -> float:
    """Step back until the cost is within the target: whole lattice units make it jump."""
    step = FINEST_STEP
    while cost(log_mu) > target:
        log_mu, step = log_mu - step, 2 * step
    return log_mu


def _gaussian_mu(epsilon: float, delta: float) -> float:
    """Return μ of the Gaussian mechanism that is exactly (ε, δ) (Balle, Wang 2018, Theorem 8)."""

    from scipy.optimize import brentq  # noqa: PLC0415 (slow; few commands need it)
    from scipy.stats import norm  # noqa: PLC0415 (slow; few commands need it)

    def excess(log_mu: float) -> float:
        mu = math.exp(log_mu)
        above = norm.cdf(mu / 2 - epsilon / mu)
        below = math.exp(min(0.0, epsilon + norm.logcdf(-mu / 2 - epsilon / mu)))
        return float(above - below - delta)

    widest = math.sqrt(2 * epsilon) + 2 * abs(norm.ppf(delta)) + 10
    return math.exp(brentq(excess, math.log(1e-12), math.log(widest)))


def _with_central_limit(
    mechanisms: Sequence[Mechanism], parts: Sequence[float], honest: int, mu: float
) -> tuple[Mechanism, ...]:
    """Return the mechanisms whose central limits are μ·√part each, and together μ."""
    squares = [part * mu**2 for part in parts]
    return tuple(map(_with_square, mechanisms, squares, [honest] * len(squares)))


def _with_square(mechanism: Mechanism, square: float, honest: int) -> Mechanism:
    """Invert μ² = rounds·q²·(e^(1/z²) − 1) (Bu et al. 2020), or rounds/z² at q = 1."""
    inverse = square / (mechanism.rounds * mechanism.sampling_rate**2)
    if mechanism.sampling_rate < 1:
        inverse = math.log1p(inverse)
    needed = max(1, mechanism.squared_sensitivity) / inverse + PEIKERT_VARIANCE
    std = math.ceil(math.sqrt(needed / mechanism.variance(honest)) * mechanism.noise_std)
    return _with_std(mechanism, max(SMALLEST_NOISE_STD, std))


def _with_std(mechanism: Mechanism, std: int) -> Mechanism:
    try:
        return Mechanism.model_validate({**mechanism.model_dump(), "noise_std": std})
    except ValidationError:
        raise LedgerFault(
            f"No noise protects the release {mechanism.phase!r} that much",
            why=f"it would need a standard deviation of {std} units",
            fix="lower its scale or number of rounds, or ask for a larger ε",
        ) from None


def _has_least_noise(mechanisms: Iterable[Mechanism]) -> bool:
    return all(mechanism.noise_std == SMALLEST_NOISE_STD for mechanism in mechanisms)


def _require_order(order: int) -> None:
    if order < RDP_ORDERS[0]:
        raise LedgerFault(f"The order of a budget must be at least 2, not {order}")


def _require_honest(honest: int) -> None:
    if honest < 1:
        raise LedgerFault(f"Noise must rely on at least one honest country, not {honest}")


def _require_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise LedgerFault(f"δ must be between 0 and 1, not {delta}")


def _require_releases(mechanisms: Sequence[Mechanism]) -> None:
    if not mechanisms:
        raise LedgerFault("A schedule without releases has no ε", fix="name at least one release")


def _require_shares(mechanisms: Sequence[Mechanism], shares: Sequence[float]) -> None:
    fit = len(shares) == len(mechanisms) and all(
        0 < share < math.inf if mechanism.costs else share == 0
        for mechanism, share in zip(mechanisms, shares, strict=True)
    )
    if not fit:
        raise LedgerFault(
            "Each release needs one share of the budget: above 0, or 0 if it is derived"
        )
