"""A coordinator that follows no rule, with countries that collude with it, among real countries.

It sends any request to any country, signs in its own name and in the colluders', and keeps all
replies.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, combinations, product

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.messages import write_request
from protocols.private_sum.set_agreement import assent_body
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    AgreeRequest,
    AnswerRequest,
    DocumentVersions,
    Phase,
    Reply,
    RequestBody,
    Signed,
)
from protocols.wire.signed_message import ROSTER as TO_ALL
from protocols.wire.signed_message import sign_message
from tests.support.adversary_state import AdversaryState
from tests.support.protocol_world import IDENTITIES, MODEL, ProtocolWorld

Set = tuple[str, ...]

ROSTER = ("AT", "BE", "CZ", "DK", "EE")
"""The countries of `five`."""
WITHOUT_EE, WITHOUT_DK = ("AT", "BE", "CZ", "DK"), ("AT", "BE", "CZ", "EE")


class LyingCoordinator:
    """Everything that a coordinator and up to c countries can do together.

    The set-up of `world` must be complete. Its countries are the real state machines; a refusal of
    one is raised to the test.
    """

    def __init__(self, world: ProtocolWorld, colluders: Sequence[str] = ()) -> None:
        self.world, self.colluders = world, tuple(colluders)
        self.adversary_state = AdversaryState(world.terms, colluders)
        self._states_at_start = {member: world.countries[member].to_bytes() for member in colluders}
        for member, state in self._states_at_start.items():
            self.adversary_state.take(member, state)
        self._plain: dict[bytes, dict[str, NDArray[np.int64]]] = defaultdict(dict)
        self._assents: dict[tuple[bytes, Set], dict[str, Signed]] = defaultdict(dict)
        self._chance = np.random.Generator(np.random.PCG64(7))

    @property
    def honest(self) -> Set:
        """The countries that do not collude."""
        return tuple(member for member in self.world.terms.roster if member not in self.colluders)

    def begin(self, number: int = 1, model: bytes = MODEL) -> CoordinatorRound:
        """Begin a round, with any number, any number of times, and on any model."""
        return self.world.twin().begin_round(number, "train", model)

    def contributed(
        self, number: int = 1, model: bytes = MODEL, *, without: Iterable[str] = ()
    ) -> CoordinatorRound:
        """Return a round to which all countries contributed except `without`."""
        coordinator_round = self.begin(number, model)
        for country in self.world.terms.roster:
            if country not in without:
                self.contribute(coordinator_round, country)
        return coordinator_round

    def contribute(self, coordinator_round: CoordinatorRound, country: str) -> bytes:
        """Have a country contribute; a colluder contributes to any number of rounds."""
        size = coordinator_round.terms.mechanism.dimension
        values = self._chance.integers(-1000, 1000, size)
        request, zeros = coordinator_round.contribute_request(country), np.zeros(size, np.int64)
        reply = self._run(country).contribute(request, values, zeros)
        self._plain[coordinator_round.terms.context][country] = values
        self.adversary_state.record(reply)
        return reply

    def agree(self, coordinator_round: CoordinatorRound, country: str, chosen: Set) -> Signed:
        """Ask a country to sign that the sum over `chosen` may be opened."""
        reply = self.world.countries[country].agree(self.agree_request(coordinator_round, chosen))
        signed = Reply.FromString(reply).assent
        self._assents[coordinator_round.terms.context, chosen][country] = signed
        return signed

    def answer(
        self,
        coordinator_round: CoordinatorRound,
        country: str,
        chosen: Set,
        assents: Iterable[Signed] | None = None,
    ) -> bytes:
        """Ask a country for its answer, with these assents or with all that are available."""
        request = self.answer_request(coordinator_round, country, chosen, assents)
        reply = self.world.countries[country].answer(request)
        self.adversary_state.record(reply, chosen)
        return reply

    def agree_all(self, coordinator_round: CoordinatorRound, chosen: Set) -> None:
        """Have every honest member sign a set."""
        for country in self._members(chosen):
            self.agree(coordinator_round, country, chosen)

    def answer_all(self, coordinator_round: CoordinatorRound, chosen: Set) -> None:
        """Have every honest member answer for a set."""
        for country in self._members(chosen):
            self.answer(coordinator_round, country, chosen)

    def agree_request(self, coordinator_round: CoordinatorRound, chosen: Set) -> bytes:
        """Return a request to sign any set, valid for every country."""
        content = AgreeRequest(round=coordinator_round.terms.round_number, countries=chosen)
        return self._request(coordinator_round, PHASE_AGREE, RequestBody(agree=content))

    def answer_request(
        self,
        coordinator_round: CoordinatorRound,
        country: str,
        chosen: Set,
        assents: Iterable[Signed] | None = None,
    ) -> bytes:
        """Return a request to answer for any set, with the heads and shares that are known."""
        context, replies = (
            coordinator_round.terms.context,
            self.adversary_state.contributions(coordinator_round.terms.context),
        )
        contributors = [member for member in sorted(set(chosen)) if member in replies]
        sealed = [
            self.adversary_state.sealed(context, member, country)
            for member in contributors
            if member != country
        ]
        content = AnswerRequest(
            round=coordinator_round.terms.round_number,
            countries=chosen,
            heads=[replies[member].contribution.head for member in contributors],
            versions=_each_once(replies[member].contribution.versions for member in contributors),
            assents=self.assents(coordinator_round, chosen) if assents is None else assents,
        )
        return self._request(
            coordinator_round, PHASE_ANSWER, RequestBody(answer=content), b"".join(sealed)
        )

    def assents(self, coordinator_round: CoordinatorRound, chosen: Set) -> list[Signed]:
        """Return the assents that the liar can show: those that it got, and each colluder's."""
        if chosen == self.world.terms.roster:
            return []
        signed = {
            member: assent(coordinator_round, member, chosen)
            for member in self.colluders
            if member in chosen
        }
        signed |= self._assents[coordinator_round.terms.context, chosen]
        return [signed[member] for member in sorted(signed)]

    def seize(self, country: str) -> None:
        """Steal an honest country's state, as it is stored at this moment."""
        self.adversary_state.take(country, self.world.countries[country].to_bytes())

    def opens(self, coordinator_round: CoordinatorRound) -> tuple[Set, ...]:
        """Return the smallest sets of honest countries whose sum is known, after opening each.

        Checks that the values are those that were contributed, and that nothing else is known.
        """
        openings = self.adversary_state.openings(coordinator_round.terms)
        plain = self._plain[coordinator_round.terms.context]
        for chosen in openings.minimal:
            value = self.adversary_state.value(coordinator_round.terms, chosen)
            assert (value == sum(plain[member] for member in chosen)).all()
        assert openings.rank == len(openings.minimal)
        return openings.minimal

    def press(self, coordinator_round: CoordinatorRound) -> tuple[Set, ...]:
        """Ask the honest members of every set to sign and answer; return what is open then.

        Checks that this is at most one set, of at least h honest countries, and of at least h + c
        countries with the colluders.
        """
        roster = self.world.terms.roster
        sizes = range(1, len(roster) + 1)
        asks: tuple[Callable[[CoordinatorRound, str, Set], object], ...] = (self.agree, self.answer)
        for chosen in chain.from_iterable(combinations(roster, size) for size in sizes):
            for ask, country in product(asks, self._members(chosen)):
                with suppress(Refusal):
                    ask(coordinator_round, country, chosen)
        return self.safe(coordinator_round)

    def safe(self, coordinator_round: CoordinatorRound) -> tuple[Set, ...]:
        """Return what `opens` returns, after checking that it is no more than the terms allow."""
        sets, terms = self.opens(coordinator_round), self.world.terms
        assert len(sets) <= 1
        for chosen in sets:
            assert len(chosen) >= terms.honest
            assert len(chosen) + len(self.colluders) >= terms.honest + terms.colluding
        return sets

    def _request(
        self,
        coordinator_round: CoordinatorRound,
        phase: Phase,
        body: RequestBody,
        parts: bytes = b"",
    ) -> bytes:
        signed = self.world.coordinator._view.ask(phase, coordinator_round.terms.context, body)
        return write_request(signed, parts=parts)

    def _members(self, chosen: Set) -> list[str]:
        return [member for member in chosen if member in self.honest]

    def _run(self, country: str) -> CountryRun:
        if country not in self.colluders:
            return self.world.countries[country]
        return CountryRun.from_bytes(
            self._states_at_start[country], self.world.countries[country]._view
        )


def five(colluding: int = 1) -> LyingCoordinator:
    """Return a liar with whom the last c of five countries collude: h = 2, and t = 4 if c > 0."""
    return LyingCoordinator(
        ProtocolWorld.ready(5, colluding=colluding, honest=2), ROSTER[5 - colluding :]
    )


def _each_once(versions: Iterable[DocumentVersions]) -> list[DocumentVersions]:
    return list(
        {member.SerializeToString(deterministic=True): member for member in versions}.values()
    )


def assent(
    coordinator_round: CoordinatorRound, signer: str, chosen: Set, **claims: object
) -> Signed:
    """Return a country's signature on a set, made with its key; `claims` change the envelope."""
    envelope = {"phase": PHASE_AGREE, "context": coordinator_round.terms.context, "sender": signer}
    envelope |= {"receiver": TO_ALL, **claims}
    body = assent_body(coordinator_round.terms.round_number, chosen)
    return sign_message(IDENTITIES[signer].sign, body=body, **envelope)  # type: ignore[arg-type]
