"""A small world of countries and a coordinator that drives the real state machines of both sides.

Tests have the coordinator's key, so that they can lie with it: `altered_request` changes an honest
request and signs it again, as a coordinator that does not follow the protocol would.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np
import pytest
from numpy.typing import NDArray

from keys.identity import SigningKey
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import Mechanism, Rounding
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_state import CountryState
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.messages import write_request
from protocols.private_sum.shares import Entropy
from protocols.proto.round_pb2 import Request as Envelope
from protocols.proto.round_pb2 import RequestBody, Signed
from protocols.wire.document_versions import LARGEST_ROSTER, DocumentVersions
from protocols.wire.signed_message import serialise, sign_message

NAMES = (
    *("AT", "BE", "CZ", "DK", "EE", "FI"),
    *(country + other for country in ascii_uppercase[6:] for other in ascii_uppercase),
)[:LARGEST_ROSTER]
"""Sorted; the first six are countries, the others fill the largest roster."""
AGREEMENT = "sha256:" + "a" * 64
STUDY = "sha256:" + "5" * 64
RUN_ID = bytes(range(16))
MODEL = b"weights"
IDENTITIES = {name: SigningKey.from_bytes(name.encode() * 16) for name in NAMES}
COORDINATOR_KEY = SigningKey.from_bytes(b"co" * 16)
TRAIN = Mechanism(
    phase="train", rounds=4, dimension=5, clip_norm=1, scale=16, noise_std=4, patients_bound=1000
)
COUNT = Mechanism(
    phase="count",
    rounds=1,
    dimension=2,
    clip_norm=1,
    scale=10,
    noise_std=30,
    patients_bound=10**6,
    rounding=Rounding.INTEGER,
)


ZEROS = np.zeros(TRAIN.dimension, np.int64)


@contextmanager
def refused(run: CountryRun, code: ReasonCode, naming: str = "") -> Iterator[None]:
    """Expect a refusal with this code, which names a party and leaves the run as it was."""
    before = run.to_bytes()
    with pytest.raises(Refusal) as refusal:
        yield
    assert refusal.value.code is code
    assert naming in str(refusal.value)
    assert run.to_bytes() == before


def state_of(run: CountryRun) -> CountryState:
    """Return the state that a country stores, as a thief would read it."""
    return CountryState.model_validate_json(run.to_bytes())


def terms_of(size: int, **changes: object) -> RunTerms:
    """Return the terms of a run among the first `size` names; c = 1 if there are more than two."""
    colluding = 1 if size > 2 else 0
    described = RunTerms(
        agreement=AGREEMENT,
        study=STUDY,
        run_id=RUN_ID,
        roster=NAMES[:size],
        colluding=colluding,
        honest=size - colluding,
        task_kind="train/glm",
        mechanisms=(TRAIN, COUNT),
    )
    return replace(described, **changes)  # type: ignore[arg-type]


def versions_of(roster: Sequence[str], **changes: int) -> DocumentVersions:
    """Return version 3 of every document, except for `changes` by country."""
    return DocumentVersions(3, 3, {country: changes.get(country, 3) for country in roster})


def view_of(country: str, terms: RunTerms) -> CountryView:
    """Return an honest country's view of a run."""
    return CountryView(
        country=country,
        terms=terms,
        identity=IDENTITIES[country],
        peers={country: IDENTITIES[country].public for country in terms.roster},
        coordinator=COORDINATOR_KEY.public,
        versions=versions_of(terms.roster),
    )


def coordinator_of(terms: RunTerms) -> CoordinatorRun:
    """Return an honest coordinator."""
    return CoordinatorRun(
        terms,
        peers={country: IDENTITIES[country].public for country in terms.roster},
        sign=COORDINATOR_KEY.sign,
        versions=versions_of(terms.roster),
    )


def altered_request(
    request: bytes,
    change: Callable[[RequestBody], object] = lambda body: None,
    *,
    model: bytes | None = None,
    parts: Sequence[bytes] | None = None,
    key: SigningKey = COORDINATOR_KEY,
    **claims: object,
) -> bytes:
    """Return a request with a changed body, signed again; `claims` change its envelope.

    `model` and `parts` replace what travels beside the signed body.
    """
    envelope = Envelope.FromString(request)
    body = RequestBody.FromString(envelope.signed.body)
    change(body)
    return write_request(
        with_body(envelope.signed, serialise(body), key, **claims),
        model=envelope.model if model is None else model,
        parts=envelope.parts if parts is None else b"".join(parts),
    )


def with_head(request: bytes, index: int, change: Callable[[Signed], Signed]) -> bytes:
    """Return a request to answer, with one changed head."""

    def put(body: RequestBody) -> None:
        body.answer.heads[index].CopyFrom(change(body.answer.heads[index]))

    return altered_request(request, put)


def parts_of(request: bytes, size: int) -> list[bytes]:
    """Return the parts of a request, of `size` bytes each, in their order."""
    parts = Envelope.FromString(request).parts
    return [parts[at : at + size] for at in range(0, len(parts), size)]


def with_body(message: Signed, body: bytes, key: SigningKey, **claims: object) -> Signed:
    """Return another body in a message's envelope, signed by `key`."""
    envelope = {"phase": message.phase, "context": message.context, "sender": message.sender}
    envelope |= {"receiver": message.receiver, **claims}
    return sign_message(key.sign, body=body, **envelope)  # type: ignore[arg-type]


@dataclass
class ProtocolWorld:
    """Countries and a coordinator, all honest unless a test interferes."""

    terms: RunTerms
    coordinator: CoordinatorRun
    countries: dict[str, CountryRun]

    @classmethod
    def of(cls, size: int, **changes: object) -> "ProtocolWorld":
        """Return a world without any message yet."""
        terms = terms_of(size, **changes)
        runs = {country: CountryRun.start(view_of(country, terms)) for country in terms.roster}
        return cls(terms, coordinator_of(terms), runs)

    @classmethod
    def ready(cls, size: int, **changes: object) -> "ProtocolWorld":
        """Return a world whose set-up is complete."""
        world = cls.of(size, **changes)
        for step in ("bundle", "encapsulate", "confirm"):
            world.set_up(step)
        return world

    def set_up(self, step: str) -> None:
        """Do one step of set-up with every country."""
        for country in self.terms.roster:
            self.exchange(step, country)

    def exchange(self, step: str, country: str) -> None:
        """Do one step of set-up with one country."""
        replies = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}
        request = getattr(self.coordinator, f"{step}_request")(country)
        reply = getattr(self.countries[country], step)(request)
        getattr(self.coordinator, f"take_{replies[step]}")(country, reply)

    def restart(self, country: str, *, entropy: Entropy = os.urandom) -> None:
        """Restart a country from its stored state."""
        stored, view = self.countries[country].to_bytes(), view_of(country, self.terms)
        self.countries[country] = CountryRun.from_bytes(stored, view, entropy=entropy)

    def twin(self) -> CoordinatorRun:
        """Return a copy of the coordinator that has forgotten the rounds."""
        other = copy.copy(self.coordinator)
        other._round_number = 0
        return other

    def contribute(
        self,
        coordinator_round: CoordinatorRound,
        country: str,
        values: NDArray[np.int64] | None = None,
        noise: NDArray[np.int64] | None = None,
    ) -> bytes:
        """Have a country contribute `values` and `noise`, or zeros; return its reply."""
        zeros = np.zeros(coordinator_round.terms.mechanism.dimension, np.int64)
        vectors = (zeros if values is None else values, zeros if noise is None else noise)
        reply = self.countries[country].contribute(
            coordinator_round.contribute_request(country), *vectors
        )
        coordinator_round.take_contribution(country, reply)
        return reply

    def agree(self, coordinator_round: CoordinatorRound, country: str) -> bytes:
        """Have a country sign the smaller set that the round was closed on; return its reply."""
        reply = self.countries[country].agree(coordinator_round.agree_request(country))
        coordinator_round.take_assent(country, reply)
        return reply

    def answer(self, coordinator_round: CoordinatorRound, country: str) -> bytes:
        """Have a country answer; return its reply."""
        reply = self.countries[country].answer(coordinator_round.answer_request(country))
        coordinator_round.take_answer(country, reply)
        return reply

    def contributed(self, round_number: int = 1, model: bytes = MODEL) -> CoordinatorRound:
        """Return a training round to which every country contributed zeros."""
        coordinator_round = self.coordinator.begin_round(round_number, "train", model)
        for country in self.terms.roster:
            self.contribute(coordinator_round, country)
        return coordinator_round

    def sum(
        self, round_number: int, phase_kind: str, values: Mapping[str, NDArray[np.int64]]
    ) -> OpenedSum | VoidRound:
        """Run a whole round in which the countries of `values` contribute, without noise."""
        coordinator_round = self.coordinator.begin_round(round_number, phase_kind, MODEL)
        for country in values:
            self.contribute(coordinator_round, country, values[country])
        return self.finish_round(coordinator_round)

    def finish_round(self, coordinator_round: CoordinatorRound) -> OpenedSum | VoidRound:
        """Close a round on those who contributed, have them agree and answer, and open it."""
        chosen = coordinator_round.close()
        if coordinator_round.openable:
            for country in chosen if coordinator_round.smaller else ():
                self.agree(coordinator_round, country)
            for country in chosen:
                self.answer(coordinator_round, country)
        return coordinator_round.open()
