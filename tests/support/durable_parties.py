"""Countries and a coordinator with the durable state that their daemons store.

A `DurableCountry` makes reply and state durable together and gives each place of a run one reply.
A `DurableCoordinator` stores the replies of set-up and the set that a round was closed on. Both can
be killed at any time. A country asserts what must be true whatever it is asked.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum import ratchet
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_state import CountryState
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.masking import KEY_BYTES
from protocols.private_sum.messages import (
    CONTENT,
    SHARE_BYTES,
    Request,
    read_request,
    split_parts,
)
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    Answer,
    Assent,
    Phase,
    Reply,
)
from tests.support.protocol_world import (
    COUNT,
    TRAIN,
    coordinator_of,
    state_of,
    terms_of,
)

ENDLESS = tuple(kind.model_copy(update={"rounds": 1000}) for kind in (TRAIN, COUNT))
LARGEST_VALUE = 10_000
SET_UP = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}
"""The requests of set-up, and a country's reply to each."""

UNHURRIED = hypothesis.settings(
    deadline=None,
    phases=[phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain],
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
"""For state machines of durable parties; each states its number of examples and steps."""

Place = tuple[bytes, int, Phase]
Vector = NDArray[np.int64]


@st.composite
def shapes(draw: st.DrawFn) -> RunTerms:
    """Return terms of 2 to 6 countries with any c and h; often some countries may drop out."""
    size = draw(st.sampled_from([2, 3, 4, 5, 6, 4, 5, 3]))
    colluding = draw(st.just(0) | st.integers(0, size - 2))
    honest = draw(st.just(2) | st.just(size - colluding) | st.integers(2, size - colluding))
    return terms_of(size, colluding=colluding, honest=honest, mechanisms=ENDLESS)


class DurableCountry:
    """A country; `given` has its contributed values by round, `said` its replies by place."""

    def __init__(self, run: CountryRun, view: CountryView, seed: int, *, journalled: bool) -> None:
        """`seed` is for the values that it contributes; without a journal it has only its state."""
        self.run, self._view, self._journalled = run, view, journalled
        self._stored = run.to_bytes()
        self._random = np.random.default_rng(seed)
        self._drawn: Vector = np.zeros(0, np.int64)
        self._digests: dict[Place, bytes] = {}
        self._masks: dict[int, dict[str, bytes]] = {}
        self.said: dict[Place, bytes] = {}
        self.given: dict[int, Vector] = {}
        self.signed: dict[int, tuple[str, ...]] = {}

    def receive(self, data: bytes, *, dies: bool = False) -> bytes | None:
        """Return the reply to a request, or None if it `dies` before the reply is durable.

        Raises ProtocolFault; nothing has changed then.
        """
        request = read_request(data)
        place = request.run_id, request.round_number, request.phase
        if self._journalled and place in self.said:
            return self._repeat(place, request)
        with self._unchanged():
            reply = self._compute(request, data)
        if dies:
            self.restart()
            return None
        self._keep(place, request, reply)
        return reply

    def store(self) -> None:
        """Make the state durable."""
        self._stored = self.run.to_bytes()

    def restart(self) -> None:
        """Forget what is not durable."""
        self.run = CountryRun.from_bytes(self._stored, self._view)

    def _repeat(self, place: Place, request: Request) -> bytes:
        if self._digests[place] != request.digest:
            raise Refusal(ReasonCode.STALE, "Another request was answered at this place of the run")
        return self.said[place]

    @contextmanager
    def _unchanged(self) -> Any:
        before = self.run.to_bytes()
        try:
            yield
        except ProtocolFault:
            assert self.run.to_bytes() == before, "a refused request changed the state"
            raise

    def _compute(self, request: Request, data: bytes) -> bytes:
        if request.phase != PHASE_CONTRIBUTE:
            reply: bytes = getattr(self.run, CONTENT[request.phase])(data)
            return reply
        size = self._view.terms.mechanism(request.phase_kind).dimension
        values, noise = self._random.integers(-LARGEST_VALUE, LARGEST_VALUE, (2, size), np.int64)
        self._drawn = values + noise
        return self.run.contribute(data, values, noise)

    def _keep(self, place: Place, request: Request, reply: bytes) -> None:
        before = CountryState.model_validate_json(self._stored)
        assert self.said.setdefault(place, reply) == reply, f"two replies at {place}"
        self._digests[place] = request.digest
        self.store()
        number, message = request.round_number, Reply.FromString(reply)
        if request.phase == PHASE_CONTRIBUTE:
            self.given[number] = self._drawn
            open_round = state_of(self.run).open_round
            assert open_round is not None
            self._masks[number] = open_round.masks
        elif request.phase == PHASE_AGREE:
            self._check_assent(number, Assent.FromString(message.assent.body))
        elif request.phase == PHASE_ANSWER:
            chosen = tuple(request.body.answer.countries)
            self._check_answer(number, Answer.FromString(message.answer.body), chosen, before)

    def _check_assent(self, number: int, assent: Assent) -> None:
        assert number in self.given, "it signed for a round that it is not in"
        assert (assent.round, number not in self.signed) == (number, True)
        self.signed[number] = tuple(assent.countries)

    def _check_answer(
        self, number: int, answer: Answer, chosen: tuple[str, ...], before: CountryState
    ) -> None:
        """Compare an answer with what the country signed, and its new state with the round."""
        assert self.signed.get(number, chosen) == chosen, "it answered for another set"
        assert number in self.given
        open_round = before.open_round
        assert open_round is not None
        split_parts(answer.shares, chosen, SHARE_BYTES)
        assert list(answer.unopenable) == sorted(set(answer.unopenable) & set(chosen))
        outside = [country for country in self._view.terms.roster if country not in chosen]
        masks = split_parts(answer.masks, outside, KEY_BYTES)
        assert masks == {country: open_round.masks[country] for country in outside}, (
            "other keys than it may give"
        )
        state_after = state_of(self.run)
        assert state_after.open_round is None, "an answered round is still open"
        for peer, link in state_after.links.items():
            key = ratchet.mask_key(link, open_round.context, self._view.country, peer)
            assert key != self._masks[number][peer], "the chain did not move on"


class DurableCoordinator:
    """A coordinator; `round` is the present round, `number` is its number."""

    def __init__(self, terms: RunTerms) -> None:
        self.terms, self.run = terms, coordinator_of(terms)
        self.replies: dict[str, dict[str, bytes]] = {said: {} for said in SET_UP.values()}
        self.round: CoordinatorRound | None = None
        self.number = 0
        self._kind = ""
        self._closed: dict[int, tuple[str, ...]] = {}

    @property
    def ready(self) -> bool:
        """Whether all replies of set-up have arrived."""
        return all(len(replies) == len(self.terms.roster) for replies in self.replies.values())

    def begin(self, number: int, kind: str) -> None:
        """Begin a round, with another model for each number."""
        self.number, self._kind = number, kind
        self.round = self.run.begin_round(number, kind, b"model %d" % number)

    def close(self) -> tuple[str, ...]:
        """Close the round, and store a smaller set before any request names it."""
        assert self.round is not None
        chosen = self.round.close()
        if self.round.smaller and self.round.openable:
            self._closed[self.number] = chosen
        return chosen

    def ask(self, step: str, country: str) -> bytes:
        """Return a request. Raises ProtocolFault if it cannot be made now."""
        if step in SET_UP or self.round is None:
            request: bytes = getattr(self.run, f"{step}_request")(country)
            return request
        if step != "contribute":
            self.close()
        in_round: bytes = getattr(self.round, f"{step}_request")(country)
        return in_round

    def receive(self, country: str, reply: bytes) -> None:
        """Process any reply of a country. Raises ProtocolFault."""
        content = Reply.FromString(reply).WhichOneof("content") or ""
        if content in self.replies:
            getattr(self.run, f"take_{content}")(country, reply)
            self.replies[content][country] = reply
        elif self.round is None:
            raise ProtocolFault("No round is open")
        else:
            getattr(self.round, f"take_{content}")(country, reply)

    def restart(self, *, resume: bool, forgetful: bool) -> None:
        """Start again from the stored state; only if `resume`, with the round.

        A `forgetful` coordinator has lost the set, and asks the whole roster again.
        """
        self.run, self.round = coordinator_of(self.terms), None
        for content, replies in self.replies.items():
            for country, reply in replies.items():
                getattr(self.run, f"take_{content}")(country, reply)
        if resume and self.number:
            asked = None if forgetful else self._closed.get(self.number)
            model = b"model %d" % self.number
            self.round = self.run.begin_round(self.number, self._kind, model, asked=asked)


def total(stations: Mapping[str, DurableCountry], number: int) -> list[int]:
    """Return the sum of what these countries contributed to a round; all must have contributed."""
    return list(map(int, sum(station.given[number] for station in stations.values())))  # type: ignore[arg-type]
