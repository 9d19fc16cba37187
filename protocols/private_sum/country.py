"""A country's side of a run: what it says, once, and only to a request that it can trust.

Order of calls: `bundle`, `encapsulate`, `confirm`, then for each round `admit` (changes nothing),
`contribute`, `answer`. Each takes the bytes of a request and returns the bytes of a reply; what is
wrong raises Refusal and changes nothing. The caller makes reply and `to_bytes` durable together
before the reply leaves, and answers a repeated request with the same bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from keys.identity import SigningKey, VerifyKey
from protocols.private_sum.context import DocumentVersions, RoundTerms, RunTerms


@dataclass(frozen=True)
class OwnView:
    """What a country holds true at the moment of a message, from its own documents and keys.

    `peers` maps every country of the roster to its identity key in the documents; `coordinator`
    is the coordinator's; `versions` are those of the documents all this was read from.
    """

    country: str
    terms: RunTerms
    identity: SigningKey
    peers: Mapping[str, VerifyKey]
    coordinator: VerifyKey
    versions: DocumentVersions


class CountryRun:
    """One country in one run."""

    @classmethod
    def start(cls, view: OwnView, *, entropy: Callable[[int], bytes]) -> Self:
        """Begin a run id that this country has never used (the caller's journal says so)."""
        raise NotImplementedError

    @classmethod
    def from_bytes(cls, state: bytes, view: OwnView, *, entropy: Callable[[int], bytes]) -> Self:
        """Continue from `to_bytes`. Raises Refusal STALE when the view's terms are others."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the run's state: secret, to be sealed by the caller."""
        raise NotImplementedError

    def bundle(self, request: bytes) -> bytes:
        """Set-up 1: fresh public keys, signed."""
        raise NotImplementedError

    def encapsulate(self, request: bytes) -> bytes:
        """Set-up 2: a ciphertext for every higher country, signed with both bundle digests."""
        raise NotImplementedError

    def confirm(self, request: bytes) -> bytes:
        """Set-up 3: a MAC for every other country."""
        raise NotImplementedError

    def admit(self, request: bytes) -> RoundTerms:
        """Check a contribute request in full, change nothing, and return the round it opens."""
        raise NotImplementedError

    def contribute(
        self, request: bytes, values: NDArray[np.int64], noise: NDArray[np.int64]
    ) -> bytes:
        """Return the masked words of values + noise (each (d,) int64) and the sealed shares."""
        raise NotImplementedError

    def answer(self, request: bytes) -> bytes:
        """Return this country's shares for U, once; afterwards the round's secrets are gone."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Forget the open round's secrets: it is void."""
        raise NotImplementedError
