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
        self._kept = {one: world.countries[one].to_bytes() for one in colluders}
        for one, state in self._kept.items():
            self.adversary_state.take(one, state)
        self._plain: dict[bytes, dict[str, NDArray[np.int64]]] = defaultdict(dict)
        self._assents: dict[tuple[bytes, Set], dict[str, Signed]] = defaultdict(dict)
        self._chance = np.random.Generator(np.random.PCG64(7))

    @property
    def honest(self) -> Set:
        """The countries that do not collude."""
        return tuple(one for one in self.world.terms.roster if one not in self.colluders)

    def begin(self, number: int = 1, model: bytes = MODEL) -> CoordinatorRound:
        """Begin a round, with any number, any number of times, and on any model."""
        return self.world.twin().begin_round(number, "train", model)

    def contributed(
        self, number: int = 1, model: bytes = MODEL, *, without: Iterable[str] = ()
    ) -> CoordinatorRound:
        """Return a round to which all countries contributed except `without`."""
        opened = self.begin(number, model)
        for country in self.world.terms.roster:
            if country not in without:
                self.contribute(opened, country)
        return opened

    def contribute(self, opened: CoordinatorRound, country: str) -> bytes:
        """Have a country contribute; a colluder contributes to any number of rounds."""
        size = opened.terms.mechanism.dimension
        values = self._chance.integers(-1000, 1000, size)
        request, zeros = opened.contribute_request(country), np.zeros(size, np.int64)
        reply = self._run(country).contribute(request, values, zeros)
        self._plain[opened.terms.context][country] = values
        self.adversary_state.record(reply)
        return reply

    def agree(self, opened: CoordinatorRound, country: str, chosen: Set) -> Signed:
        """Ask a country to sign that the sum over `chosen` may be opened."""
        reply = self.world.countries[country].agree(self.agree_request(opened, chosen))
        signed = Reply.FromString(reply).assent
        self._assents[opened.terms.context, chosen][country] = signed
        return signed

    def answer(
        self,
        opened: CoordinatorRound,
        country: str,
        chosen: Set,
        assents: Iterable[Signed] | None = None,
    ) -> bytes:
        """Ask a country for its answer, with these assents or with all that are available."""
        request = self.answer_request(opened, country, chosen, assents)
        reply = self.world.countries[country].answer(request)
        self.adversary_state.record(reply, chosen)
        return reply

    def agree_all(self, opened: CoordinatorRound, chosen: Set) -> None:
        """Have every honest member sign a set."""
        for country in self._members(chosen):
            self.agree(opened, country, chosen)

    def answer_all(self, opened: CoordinatorRound, chosen: Set) -> None:
        """Have every honest member answer for a set."""
        for country in self._members(chosen):
            self.answer(opened, country, chosen)

    def agree_request(self, opened: CoordinatorRound, chosen: Set) -> bytes:
        """Return a request to sign any set, valid for every country."""
        content = AgreeRequest(round=opened.terms.round_number, countries=chosen)
        return self._asked(opened, PHASE_AGREE, RequestBody(agree=content))

    def answer_request(
        self,
        opened: CoordinatorRound,
        country: str,
        chosen: Set,
        assents: Iterable[Signed] | None = None,
    ) -> bytes:
        """Return a request to answer for any set, with the heads and shares that are known."""
        context, replies = opened.terms.context, self.adversary_state.said(opened.terms.context)
        there = [one for one in sorted(set(chosen)) if one in replies]
        sealed = [
            self.adversary_state.sealed(context, one, country) for one in there if one != country
        ]
        content = AnswerRequest(
            round=opened.terms.round_number,
            countries=chosen,
            heads=[replies[one].contribution.head for one in there],
            versions=_each_once(replies[one].contribution.versions for one in there),
            assents=self.assents(opened, chosen) if assents is None else assents,
        )
        return self._asked(opened, PHASE_ANSWER, RequestBody(answer=content), b"".join(sealed))

    def assents(self, opened: CoordinatorRound, chosen: Set) -> list[Signed]:
        """Return the assents that the liar can show: those that it got, and each colluder's."""
        if chosen == self.world.terms.roster:
            return []
        signed = {one: assent(opened, one, chosen) for one in self.colluders if one in chosen}
        signed |= self._assents[opened.terms.context, chosen]
        return [signed[one] for one in sorted(signed)]

    def seize(self, country: str) -> None:
        """Steal an honest country's state, as it is stored at this moment."""
        self.adversary_state.take(country, self.world.countries[country].to_bytes())

    def opens(self, opened: CoordinatorRound) -> tuple[Set, ...]:
        """Return the smallest sets of honest countries whose sum is known, after opening each.

        Checks that the values are those that were contributed, and that nothing else is known.
        """
        openings = self.adversary_state.openings(opened.terms)
        plain = self._plain[opened.terms.context]
        for chosen in openings.minimal:
            value = self.adversary_state.value(opened.terms, chosen)
            assert (value == sum(plain[one] for one in chosen)).all()
        assert openings.rank == len(openings.minimal)
        return openings.minimal

    def press(self, opened: CoordinatorRound) -> tuple[Set, ...]:
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
                    ask(opened, country, chosen)
        return self.safe(opened)

    def safe(self, opened: CoordinatorRound) -> tuple[Set, ...]:
        """Return what `opens` returns, after checking that it is no more than the terms allow."""
        sets, terms = self.opens(opened), self.world.terms
        assert len(sets) <= 1
        for chosen in sets:
            assert len(chosen) >= terms.honest
            assert len(chosen) + len(self.colluders) >= terms.honest + terms.colluding
        return sets

    def _asked(
        self, opened: CoordinatorRound, phase: Phase, body: RequestBody, parts: bytes = b""
    ) -> bytes:
        signed = self.world.coordinator._view.ask(phase, opened.terms.context, body)
        return write_request(signed, parts=parts)

    def _members(self, chosen: Set) -> list[str]:
        return [one for one in chosen if one in self.honest]

    def _run(self, country: str) -> CountryRun:
        if country not in self.colluders:
            return self.world.countries[country]
        return CountryRun.from_bytes(self._kept[country], self.world.countries[country]._view)


def five(colluding: int = 1) -> LyingCoordinator:
    """Return a liar with whom the last c of five countries collude: h = 2, and t = 4 if c > 0."""
    return LyingCoordinator(
        ProtocolWorld.ready(5, colluding=colluding, honest=2), ROSTER[5 - colluding :]
    )


def _each_once(versions: Iterable[DocumentVersions]) -> list[DocumentVersions]:
    return list({one.SerializeToString(deterministic=True): one for one in versions}.values())


def assent(opened: CoordinatorRound, signer: str, chosen: Set, **claims: object) -> Signed:
    """Return a country's signature on a set, made with its key; `claims` change the envelope."""
    envelope = {"phase": PHASE_AGREE, "context": opened.terms.context, "sender": signer}
    envelope |= {"receiver": TO_ALL, **claims}
    body = assent_body(opened.terms.round_number, chosen)
    return sign_message(IDENTITIES[signer].sign, body=body, **envelope)  # type: ignore[arg-type]
