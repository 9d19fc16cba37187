"""A country's side of a run: what it says, once, and only to a request that it can trust.

Order of calls: `bundle`, `encapsulate`, `confirm`, then for each round `admit` (changes nothing),
`contribute`, `agree` where another country dropped out, and `answer`. Each takes the bytes of a
request and returns the bytes of a reply; what is wrong raises Refusal and changes nothing. The
caller makes reply and `to_bytes` durable together before the reply leaves, and answers a repeated
request with the same bytes.
"""

import os
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum import country_round, country_setup
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.country_setup import Step
from protocols.private_sum.country_state import CountryState, Stage, read_state
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.masking import Masker
from protocols.private_sum.messages import Request, read_request, write_contribution
from protocols.private_sum.shares import Entropy
from protocols.proto.round_pb2 import PHASE_BUNDLE, PHASE_CONFIRM, PHASE_ENCAPSULATE, Phase
from protocols.wire.signed_message import serialise


class CountryRun:
    """One country in one run.

    Each method raises Refusal, with the code for the coordinator, and then nothing has changed.
    """

    def __init__(self, view: CountryView, state: CountryState, entropy: Entropy) -> None:
        self._view, self._state, self._entropy = view, state, entropy
        self._masker = Masker(0)

    @classmethod
    def start(cls, view: CountryView, *, entropy: Entropy = os.urandom) -> Self:
        """Begin a run id that this country has never used; the caller's journal must check that."""
        return cls(view, CountryState(run=view.terms.context), entropy)

    @classmethod
    def from_bytes(cls, state: bytes, view: CountryView, *, entropy: Entropy = os.urandom) -> Self:
        """Continue from `to_bytes`.

        Raises Refusal STALE when the documents now give other terms than those the run began
        with, and ProtocolFault when the bytes are not a state.
        """
        read = read_state(state)
        if read.run != view.terms.context:
            raise Refusal(
                ReasonCode.STALE,
                "The documents have changed since this run began",
                why="its agreement, study, countries or schedule are not what they were",
                fix="let the coordinator begin a new run",
            )
        return cls(view, read, entropy)

    def to_bytes(self) -> bytes:
        """Return the run's state: secret, to be sealed, and to replace the one before."""
        return self._state.to_bytes()

    @property
    def round_number(self) -> int:
        """The last round that this country contributed to; 0 before the first."""
        return self._state.round_number

    @property
    def awaits_answer(self) -> bool:
        """Whether that round is neither answered nor abandoned."""
        return self._state.open_round is not None

    def bundle(self, request: bytes) -> bytes:
        """Set-up 1: fresh public keys, signed."""
        return self._set_up(request, PHASE_BUNDLE, Stage.FRESH, country_setup.give_bundle)

    def encapsulate(self, request: bytes) -> bytes:
        """Set-up 2: a ciphertext for every higher country, signed with both bundle digests."""
        step = country_setup.give_encapsulations
        return self._set_up(request, PHASE_ENCAPSULATE, Stage.BUNDLED, step)

    def confirm(self, request: bytes) -> bytes:
        """Set-up 3: a MAC for every other country; theirs come with the first round."""
        step = country_setup.give_confirmations
        return self._set_up(request, PHASE_CONFIRM, Stage.ENCAPSULATED, step)

    def admit(self, request: bytes) -> RoundTerms:
        """Check a contribute request in full, change nothing, and return the round it opens."""
        return country_round.admitted(self._view, self._state, read_request(request))

    def contribute(
        self, request: bytes, values: NDArray[np.int64], noise: NDArray[np.int64]
    ) -> bytes:
        """Return the masked sum of `values` and `noise`, each (d,) int64, and the sealed shares.

        A round still open from before is abandoned. Raises ProtocolFault for another shape.
        """
        terms = self.admit(request)
        for array in (values, noise):
            _require_vector(array, terms.mechanism.dimension)
        if self._masker.words != terms.words:
            self._masker = Masker(terms.words)
        self._state, said, words = country_round.contributed(
            self._view, self._state, terms, values + noise, self._masker, self._entropy
        )
        return write_contribution(said, words.data.cast("B"))

    def agree(self, request: bytes) -> bytes:
        """Return this country's signature on one set smaller than the roster."""
        return self._advance(country_round.agreed(self._view, self._state, read_request(request)))

    def answer(self, request: bytes) -> bytes:
        """Return this country's shares for U, once; afterwards the round's secrets are gone."""
        return self._advance(country_round.answered(self._view, self._state, read_request(request)))

    def _set_up(
        self,
        data: bytes,
        phase: Phase,
        stage: Stage,
        step: Callable[[CountryView, CountryState, Request], Step],
    ) -> bytes:
        request = read_request(data)
        self._view.trust(request, phase, self._view.terms.context)
        if self._state.stage is not stage:
            raise Refusal(
                ReasonCode.STALE,
                "A set-up request is out of order",
                why=f"this country is at the stage {self._state.stage.value!r} of the run",
            )
        return self._advance(step(self._view, self._state, request))

    def _advance(self, step: Step) -> bytes:
        self._state, reply = step
        return serialise(reply)


def _require_vector(array: NDArray[np.int64], dimension: int) -> None:
    if array.dtype != np.int64 or array.shape != (dimension,):
        raise ProtocolFault(
            "A contribution has the wrong shape",
            why=f"the round sums {dimension} integers of 64 bits",
        )
