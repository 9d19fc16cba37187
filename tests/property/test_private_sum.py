"""The private sum under Hypothesis: exact sums, rounds in any order, bytes that were changed."""

from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.mechanism import Mechanism
from protocols.private_sum.country import CountryRun
from protocols.private_sum.messages import read_reply, read_request
from protocols.private_sum.opening import CoordinatorRound, OpenedSum
from tests.support.federation import MODEL, TRAIN, World, view_of

WIDTHS = {21: 1_000, 32: 10**6, 64: 10**9}
"""Lane bits, and a public bound on patients that asks for them."""


def mechanism_of(bits: int, dimension: int) -> Mechanism:
    return TRAIN.model_copy(
        update={"dimension": dimension, "patients_bound": WIDTHS[bits], "rounds": 2}
    )


@st.composite
def sums(draw: st.DrawFn) -> tuple[int, int, list[NDArray[np.int64]]]:
    """Return the number of countries, the lane bits, and a vector of values for each."""
    size, bits = draw(st.integers(2, 6)), draw(st.sampled_from(list(WIDTHS)))
    reach = (2 ** (bits - 1) - 1) // size
    dimension = draw(st.integers(1, 9))
    vector = st.lists(st.integers(-reach, reach), min_size=dimension, max_size=dimension)
    rows = draw(st.lists(vector, min_size=size, max_size=size))
    return size, bits, [np.array(row, np.int64) for row in rows]


@settings(max_examples=40, deadline=None)
@given(sums())
def test_sums_are_exact(case: tuple[int, int, list[NDArray[np.int64]]]) -> None:
    size, bits, rows = case
    mechanism = mechanism_of(bits, rows[0].size)
    assert mechanism.lane_bits(size) == bits
    world = World.ready(size, mechanisms=(mechanism,))
    result = world.sum(1, "train", dict(zip(world.terms.roster, rows, strict=True)))
    assert isinstance(result, OpenedSum)
    assert result.values.tolist() == [sum(int(row[i]) for row in rows) for i in range(len(rows[0]))]


class Rounds(RuleBasedStateMachine):
    """Three countries, rounds that begin, stall and are replayed, countries that restart.

    Whatever happens: a country contributes and answers at most once a round, an old request is
    refused, and what opens is the sum of what the countries of that round contributed.
    """

    @initialize(size=st.integers(2, 4))
    def begin(self, size: int) -> None:
        endless = TRAIN.model_copy(update={"rounds": 1000})
        self.world = World.ready(size, mechanisms=(endless,))
        self.number = 0
        self.round: CoordinatorRound | None = None
        self.values: dict[str, int] = {}
        self.used: list[tuple[str, str, bytes]] = []
        self.answered: set[str] = set()
        self.opened = 0

    def country(self, index: int) -> str:
        return self.world.terms.roster[index % len(self.world.terms.roster)]

    @rule(step=st.integers(1, 3))
    def next_round(self, step: int) -> None:
        self.number += step
        self.round = self.world.coordinator.begin_round(self.number, "train", MODEL)
        self.values, self.answered = {}, set()

    @precondition(lambda self: self.round is not None)
    @rule(index=st.integers(0, 3), value=st.integers(-1000, 1000))
    def contribute(self, index: int, value: int) -> None:
        assert self.round is not None
        country = self.country(index)
        request = self.round.contribute_request(country)
        values, zeros = np.full(TRAIN.dimension, value), np.zeros(TRAIN.dimension, np.int64)
        run = self.world.countries[country]
        if country in self.values:
            with pytest.raises(Refusal) as refusal:
                run.contribute(request, values, zeros)
            assert refusal.value.code is ReasonCode.STALE
            return
        self.round.take_contribution(country, run.contribute(request, values, zeros))
        self.values[country] = value
        self.used.append(("contribute", country, request))

    @precondition(
        lambda self: self.round is not None and len(self.values) == len(self.world.terms.roster)
    )
    @rule(index=st.integers(0, 3))
    def answer(self, index: int) -> None:
        assert self.round is not None
        country = self.country(index)
        request = self.round.answer_request(country)
        if country in self.answered:
            with pytest.raises(Refusal) as refusal:
                self.world.countries[country].answer(request)
            assert refusal.value.code is ReasonCode.STALE
            return
        self.round.take_answer(country, self.world.countries[country].answer(request))
        self.answered.add(country)
        self.used.append(("answer", country, request))

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        what, country, request = data.draw(st.sampled_from(self.used))
        zeros = np.zeros(TRAIN.dimension, np.int64)
        arguments = (zeros, zeros) if what == "contribute" else ()
        run = self.world.countries[country]
        before = run.to_bytes()
        with pytest.raises(Refusal) as refusal:
            getattr(run, what)(request, *arguments)
        assert refusal.value.code is ReasonCode.STALE
        assert run.to_bytes() == before

    @rule(index=st.integers(0, 3))
    def restart(self, index: int) -> None:
        self.world.restart(self.country(index))

    @invariant()
    def what_opens_is_the_sum(self) -> None:
        if getattr(self, "round", None) is None:
            return
        assert self.round is not None
        result = self.round.open()
        enough = len(self.answered) >= self.world.terms.threshold
        assert isinstance(result, OpenedSum) == enough
        if isinstance(result, OpenedSum):
            assert (result.values == sum(self.values.values())).all()


Rounds.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRounds = Rounds.TestCase


@cache
def spoken() -> tuple[World, bytes, bytes, bytes]:
    """Return a world after one contribution, its request, the reply, and the state before."""
    world = World.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    before = world.countries["AT"].to_bytes()
    request = opened.contribute_request("AT")
    return world, request, world.contribute(opened, "AT"), before


def changed(data: bytes, place: int, mask: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_request_with_one_byte_changed_is_refused(place: int, mask: int) -> None:
    world, request, _, before = spoken()
    run = CountryRun.from_bytes(before, view_of("AT", world.terms))
    with pytest.raises(Refusal):
        run.admit(changed(request, place, mask))
    run.admit(request)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_reply_with_one_byte_changed_never_opens_to_another_sum(place: int, mask: int) -> None:
    world, _, reply, _ = spoken()
    fresh = World(world.terms, world.twin(), dict(world.countries))
    opened = fresh.coordinator.begin_round(1, "train", MODEL)
    try:
        opened.take_contribution("AT", changed(reply, place, mask))
    except ProtocolFault:
        return
    taken = opened._heads["AT"]
    assert taken == world_head(reply), "only what is sealed for another country may differ"


def world_head(reply: bytes) -> object:
    return read_reply(reply, "AT", "contribution").contribution.head


@given(st.binary(max_size=200))
def test_bytes_from_outside_open_or_are_refused(data: bytes) -> None:
    world, _, _, before = spoken()
    run = CountryRun.from_bytes(before, view_of("AT", world.terms))
    zeros = np.zeros(TRAIN.dimension, np.int64)
    for read in (
        read_request,
        run.bundle,
        run.encapsulate,
        run.confirm,
        run.admit,
        lambda request: run.contribute(request, zeros, zeros),
        run.answer,
        lambda reply: world.coordinator.take_bundle("AT", reply),
        lambda reply: world.coordinator.take_encapsulation("AT", reply),
        lambda reply: world.coordinator.take_confirmation("AT", reply),
        lambda stored: CountryRun.from_bytes(stored, view_of("AT", world.terms)),
    ):
        with suppress(ProtocolFault):
            read(data)
    assert run.to_bytes() == before
