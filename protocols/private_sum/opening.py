"""The coordinator's side of one round: collect contributions and answers, open the sum or none.

Order: `contribute_request` to every country, `take_contribution` from each, `answer_request` to
every country, `take_answer` from at least t, `open`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.private_sum.context import RoundTerms


@dataclass(frozen=True)
class OpenedSum:
    """Σ values + noise over `countries`, (d,) int64 lattice units; `variance` of the noise in it.

    `unopenable` pairs (holder, owner) whose share of the owner's seed was of no use.
    """

    values: NDArray[np.int64]
    countries: tuple[str, ...]
    variance: int
    unopenable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VoidRound:
    """A round that opened nothing: why, and the countries known to be missing or at fault."""

    reason: str
    missing: tuple[str, ...]


class CoordinatorRound:
    """One round of a run."""

    @property
    def terms(self) -> RoundTerms:
        """What the round is about."""
        raise NotImplementedError

    @property
    def contributed(self) -> tuple[str, ...]:
        """Countries whose contribution is here."""
        raise NotImplementedError

    def contribute_request(self, country: str) -> bytes:
        """Return the request for a country's contribution."""
        raise NotImplementedError

    def take_contribution(self, country: str, reply: bytes) -> None:
        """Take a contribution. Raises ProtocolFault naming the country, Refusal if it refused."""
        raise NotImplementedError

    def answer_request(self, country: str) -> bytes:
        """Return the request for a country's shares; every contribution must be there."""
        raise NotImplementedError

    def take_answer(self, country: str, reply: bytes) -> None:
        """Take a country's shares."""
        raise NotImplementedError

    def open(self) -> OpenedSum | VoidRound:
        """Open the sum with what is here, or say why nothing opens."""
        raise NotImplementedError
