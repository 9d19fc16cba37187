"""Public constants of a noisy release: its bound, rounding, noise and lane width.

Everything here is signed in the study. Node, coordinator and officer compute the same numbers
from it; nothing here reads a record. Sources: Kairouz, Liu, Steinke 2021 (conditional
rounding, Section 4.1; sums of discrete Gaussians, Proposition 14); Canonne, Kamath, Steinke 2020.
"""

import math
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.errors import ProtocolFault

CHECK_COORDINATES = 4
MAX_COORDINATES = 1_310_720
"""Most coordinates of one release: 10.5 MB of model out, and as much of a sum back."""
MAX_ROUNDS = 100_000
MAX_PATIENTS = 10**9
ROUNDING_BETA = math.exp(-0.5)
"""Bias parameter of conditional rounding; Kairouz, Liu, Steinke 2021 recommend e^(-1/2)."""
WRAP_BITS = 40
"""A sum overflows its lane with probability at most 2^-40."""
LANE_BITS = (21, 32, 64)
LARGEST_SCALE = 2**24
SMALLEST_RATE = 1e-6
"""A lower rate would sample less than one patient, even of a large register."""
SMALLEST_NOISE_STD = 3
"""In lattice units: a sum of such shares is close to the discrete Gaussian of the same variance."""
FACTOR_MARGIN = 0.01
"""How much rounding may lengthen a gradient's factors (`protocols.numerics.factored_rounding`)."""
FURTHEST_FACTORED = 2**25
"""Up to this norm, squared norms and sums of factored integers are exact in float64."""


class Scope(StrEnum):
    """Whose noise protects the release: all honest shares together, or this country's alone."""

    SHARED = "shared"
    LOCAL = "local"
    DERIVED = "derived"
    """A sum of values that countries computed from local releases: it needs no further noise."""


class Rounding(StrEnum):
    """How a patient's real vector becomes integers."""

    CONDITIONAL = "conditional"
    INTEGER = "integer"
    """The task already gives integers of norm at most C; scaling keeps them integers."""
    FACTORED = "factored"
    """Outer products whose factors are rounded (`protocols.numerics.factored_rounding`)."""


class Mechanism(BaseModel):
    """One kind of noisy release, repeated `rounds` times with fresh noise.

    In a derived release `patients_bound` is the number of contributions in one country's part; a
    coordinate of that part is at most `patients_bound` times the clip norm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    phase: Annotated[str, Field(pattern=r"^[a-z][a-z-]{0,31}$")]
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    sampling_rate: Annotated[float, Field(ge=SMALLEST_RATE, le=1)] = 1.0
    dimension: Annotated[int, Field(ge=1, le=MAX_COORDINATES)]
    clip_norm: Annotated[float, Field(gt=0, le=1e6)]
    scale: Annotated[int, Field(ge=1, le=LARGEST_SCALE)]
    noise_std: Annotated[int, Field(ge=SMALLEST_NOISE_STD, le=2**40)]
    patients_bound: Annotated[int, Field(ge=1, le=MAX_PATIENTS)]
    rounding: Rounding = Rounding.CONDITIONAL
    scope: Scope = Scope.SHARED

    @model_validator(mode="after")
    def _exact(self) -> Self:
        factored = self.rounding is Rounding.FACTORED
        if factored and self.sensitivity > FURTHEST_FACTORED:
            raise ValueError("scale: factored integers of this length are not exact in float64")
        return self

    @property
    def squared_sensitivity(self) -> int:
        """Largest squared norm, in lattice units, that one patient's integers may have.

        The proofs are in `protocols.numerics.rounding`, and for factored rounding in
        `protocols.numerics.factored_rounding`.
        """
        reach = self.clip_norm * self.scale
        if self.rounding is Rounding.INTEGER:
            return math.floor(reach**2)
        if self.rounding is Rounding.FACTORED:
            return math.floor((reach * (1 + FACTOR_MARGIN)) ** 2)
        d, slack = self.dimension, math.sqrt(2 * math.log(1 / ROUNDING_BETA))
        always = (reach + math.sqrt(d)) ** 2
        often = reach**2 + d / 4 + slack * (reach + math.sqrt(d) / 2)
        return math.floor(min(always, often))

    @property
    def sensitivity(self) -> float:
        """Δ: the L2 sensitivity after rounding, in lattice units."""
        return math.sqrt(self.squared_sensitivity)

    @property
    def costs(self) -> bool:
        """Whether the release uses privacy budget; a derived one does not."""
        return self.scope is not Scope.DERIVED

    @property
    def leaves_country(self) -> bool:
        """Whether the release is summed over countries; a local one stays in its country."""
        return self.scope is not Scope.LOCAL

    @property
    def reach(self) -> int:
        """The largest coordinate, in lattice units, that `patients_bound` contributions give."""
        return self.patients_bound * math.ceil(self.sensitivity)

    def variance(self, honest: int) -> int:
        """Noise variance, in squared lattice units, that the accountant may rely on."""
        shares = honest if self.scope is Scope.SHARED else 1
        return shares * self.noise_std**2

    def require_fitting_lane(self, countries: int) -> None:
        """Raise ProtocolFault if the sums of this many countries could overflow a 64-bit word."""
        self.lane_bits(countries)

    def lane_bits(self, countries: int) -> int:
        """Return k, the narrowest lane in which a sum overflows with probability ≤ 2^-40.

        Only public values count. Σ over patients of a coordinate is at most `reach` in absolute
        value (in each country's part, if the release is derived). A share of noise X has
        E[e^(tX)] ≤ e^(t²·noise_std²/2): completing the square leaves
        Σ e^(-(v - t·noise_std²)²/(2·noise_std²)) over integers v, and that is largest without a
        shift (Poisson summation). So the absolute value of the sum of n shares exceeds λ with
        probability at most 2·exp(-λ²/(2n·noise_std²)) (Chernoff), and that of any of d coordinates
        with d times that: 2^-40 at λ = noise_std·√n·√(2·(ln 2d + 40 ln 2)). A lane of k bits holds
        numbers below 2^(k-1) in absolute value. An overflow would spoil the sum, and not harm
        privacy: words are masked and added modulo 2^64 whatever they hold.

        Raises ProtocolFault if 64 bits are too few.
        """
        spread = self.noise_std * math.sqrt(countries)
        union = math.log(2 * self.dimension) + WRAP_BITS * math.log(2)
        tail = spread * math.sqrt(2 * union)
        parts = countries if self.scope is Scope.DERIVED else 1
        needed = (parts * self.reach + math.ceil(tail)).bit_length() + 1
        for bits in LANE_BITS:
            if needed <= bits:
                return bits
        raise ProtocolFault(
            f"The sums of the release {self.phase!r} may overflow a word of {LANE_BITS[-1]} bits",
            why=f"{self.patients_bound} patients may each move a coordinate by up to "
            f"{math.ceil(self.sensitivity)} lattice units; with the noise that needs {needed} bits",
            fix="lower patients_bound to the most patients that the countries can really have, or "
            "lower the clip norm or the noise",
        )
