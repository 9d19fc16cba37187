"""What a release costs: RDP at one order for the ledger, PLD for the statement about a schedule.

The law of a release is the sum of h exact discrete Gaussians of variance noise_std². Three steps
lead from it to formulas that are known, each with its price (private-sum.md, Noise):

1. the sum against one discrete Gaussian of variance σ² = h·noise_std²: its density is within
   e^(±τ) a coordinate (Kairouz, Liu, Steinke 2021, Proposition 14);
2. that discrete Gaussian against a continuous one of variance σ² − 4, rounded at random
   (Peikert 2010): within e^(±5·e^(−8π²)) a coordinate;
3. the continuous Gaussian at sensitivity Δ, Poisson-subsampled, has closed forms.

A release in d dimensions is thus within e^(±slack) of step 3, slack = d·(τ + 5·e^(−8π²)): ε grows
by 2·slack and δ by the factor e^slack. Every figure is rounded towards more privacy loss.
"""

from collections.abc import Sequence

from protocols.mechanism import Mechanism

MICRO = 1_000_000
"""Micro-units in one unit of RDP."""


def tau(noise_std: int, shares: int) -> float:
    """Return τ of Kairouz, Liu, Steinke 2021, Proposition 14, rounded up: 0 for one share only.

    τ = 10·Σ_{k=1}^{shares−1} e^(−2π²·noise_std²·k/(k+1)); never 0 by underflow.
    """
    raise NotImplementedError


def slack(mechanism: Mechanism, honest: int) -> float:
    """Return the log-density slack of all rounds together, rounded up (greater than 0)."""
    raise NotImplementedError


def rdp_micro(mechanism: Mechanism, honest: int, order: int) -> int:
    """Return the RDP of all rounds at `order`, in micro-units, rounded up.

    Raises LedgerFault where the order is below 2 or `honest` below 1.
    """
    raise NotImplementedError


def cap_micro(epsilon: float, delta: float, order: int) -> int:
    """Return the most RDP at `order`, in micro-units, that implies (ε, δ); rounded down.

    Conversion: Canonne, Kamath, Steinke 2020, Proposition 12. Raises LedgerFault where no RDP at
    this order implies (ε, δ).
    """
    raise NotImplementedError


def epsilon(mechanisms: Sequence[Mechanism], honest: int, delta: float) -> float:
    """Return ε at δ of the whole schedule, by privacy loss distributions, rounded up.

    Adjacency: one patient added or removed in one country. Cached. Raises LedgerFault on an empty
    schedule or a δ outside (0, 1).
    """
    raise NotImplementedError


def calibrate(
    mechanisms: Sequence[Mechanism],
    shares: Sequence[float],
    honest: int,
    epsilon: float,
    delta: float,
) -> tuple[Mechanism, ...]:
    """Return the schedule with the least integer `noise_std`s that keep its PLD ε within target.

    `shares` are the parts of the budget, in proportion, that the mechanisms take; the parts of a
    composition add up as squares of its central limit (Dong, Roth, Su 2022), not as ε. Cached.
    The result's ε is never above `epsilon`, and within 0.5 % of it where the lattice is fine
    enough (a noise_std of a few hundred units is). Raises LedgerFault where no noise can do it.
    """
    raise NotImplementedError
