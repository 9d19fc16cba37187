"""A country's side of a run: replies once to each request, and only if the request is authentic.

Order of calls: `bundle`, `encapsulate`, `confirm`, then for each round `admit` (changes nothing),
`contribute`, `agree` if another country dropped out, and `answer`. Each has the bytes of a request
as argument and returns the bytes of a reply; a wrong request raises Refusal and changes nothing.
The caller stores reply and `to_bytes` durably together before the reply leaves, and answers a
repeated request with the same bytes.
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
        """Start a run with an id that this country never used; the caller's journal checks that."""
        return cls(view, CountryState(run=view.terms.context), entropy)

    @classmethod
    def from_bytes(cls, state: bytes, view: CountryView, *, entropy: Entropy = os.urandom) -> Self:
        """Continue a run from the output of `to_bytes`.

        Raises Refusal STALE if the documents now give other terms than those the run began with,
        and ProtocolFault if the bytes are not a state.
        """
        stored = read_state(state)
        if stored.run != view.terms.context:
            raise Refusal(
                ReasonCode.STALE,
                "The documents have changed since this run began",
                why="its agreement, study, countries or schedule are not what they were",
                fix="ask the coordinator to begin a new run",
            )
        return cls(view, stored, entropy)

    def to_bytes(self) -> bytes:
        """Return the run's state: secret, to be sealed. It replaces the previous one."""
        return self._state.to_bytes()

    @property
    def round_number(self) -> int:
        """The last round that this country contributed to; 0 before the first."""
        return self._state.round_number

    @property
    def awaits_answer(self) -> bool:
        """Whether the last round is neither answered nor abandoned."""
        return self._state.open_round is not None

    def bundle(self, request: bytes) -> bytes:
        """Return this country's fresh public keys, signed (set-up 1)."""
        return self._set_up(request, PHASE_BUNDLE, Stage.FRESH, country_setup.give_bundle)

    def encapsulate(self, request: bytes) -> bytes:
        """Return a ciphertext for every higher country, and the signed list of them (set-up 2)."""
        step = country_setup.give_encapsulations
        return self._set_up(request, PHASE_ENCAPSULATE, Stage.BUNDLED, step)

    def confirm(self, request: bytes) -> bytes:
        """Return a MAC for every other country (set-up 3); theirs arrive with the first round."""
        step = country_setup.give_confirmations
        return self._set_up(request, PHASE_CONFIRM, Stage.ENCAPSULATED, step)

    def admit(self, request: bytes) -> RoundTerms:
        """Check a contribute request in full and return its round, without changing anything."""
        return country_round.admit(self._view, self._state, read_request(request))

    def contribute(
        self, request: bytes, values: NDArray[np.int64], noise: NDArray[np.int64]
    ) -> bytes:
        """Return the masked sum of `values` and `noise`, each (d,) int64, and the sealed shares.

        An earlier round that is still open is abandoned. Raises ProtocolFault for another shape.
        """
        terms = self.admit(request)
        for array in (values, noise):
            _require_vector(array, terms.mechanism.dimension)
        if self._masker.words != terms.words:
            self._masker = Masker(terms.words)
        self._state, contribution, words = country_round.contribute(
            self._view, self._state, terms, values + noise, self._masker, self._entropy
        )
        return write_contribution(contribution, words.data.cast("B"))

    def agree(self, request: bytes) -> bytes:
        """Return this country's signature on one set smaller than the roster."""
        return self._advance(country_round.agree(self._view, self._state, read_request(request)))

    def answer(self, request: bytes) -> bytes:
        """Return this country's shares for U, once, and erase the round's secrets."""
        return self._advance(country_round.answer(self._view, self._state, read_request(request)))

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
