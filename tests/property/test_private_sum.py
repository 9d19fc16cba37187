"""The private sum under Hypothesis: exact sums, and changed or random bytes."""

from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.errors import ProtocolFault, Refusal
from protocols.numerics.mechanism import Mechanism
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.private_sum.country_round import NOTHING
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.messages import (
    SEALED_BYTES,
    SHARE_BYTES,
    read_request,
    split_parts,
)
from protocols.proto.round_pb2 import Answer, Reply
from protocols.proto.round_pb2 import Request as Envelope
from tests.support.examples import examples
from tests.support.protocol_world import (
    MODEL,
    TRAIN,
    ProtocolWorld,
    view_of,
)

WIDTHS = {21: 1_000, 32: 10**6, 64: 10**9}
"""Lane bits, and a public bound on patients that needs them."""


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


@settings(max_examples=examples(40), deadline=None)
@given(sums())
def test_sums_are_exact(case: tuple[int, int, list[NDArray[np.int64]]]) -> None:
    size, bits, rows = case
    mechanism = mechanism_of(bits, rows[0].size)
    assert mechanism.lane_bits(size) == bits
    world = ProtocolWorld.ready(size, mechanisms=(mechanism,))
    result = world.sum(1, "train", dict(zip(world.terms.roster, rows, strict=True)))
    assert isinstance(result, OpenedSum)
    assert result.values.tolist() == [sum(int(row[i]) for row in rows) for i in range(len(rows[0]))]


@cache
def after_one_contribution() -> tuple[ProtocolWorld, bytes, bytes, bytes]:
    """Return a world after one contribution, its request, the reply, and the state before."""
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    before = world.countries["AT"].to_bytes()
    request = round_.contribute_request("AT")
    return world, request, world.contribute(round_, "AT"), before


def changed(data: bytes, position: int, mask: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_request_with_one_byte_changed_is_refused(position: int, mask: int) -> None:
    world, request, _, before = after_one_contribution()
    run = CountryRun.from_bytes(before, view_of("AT", world.terms))
    with pytest.raises(Refusal):
        run.admit(changed(request, position, mask))
    run.admit(request)


@cache
def dropped_out() -> tuple[ProtocolWorld, dict[str, bytes], bytes]:
    """Return a world without DK, the requests that AT then gets, and AT's state before."""
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country in ("AT", "BE", "CZ"):
        world.contribute(round_, country)
    before = world.countries["AT"].to_bytes()
    for country in round_.close():
        world.agree(round_, country)
    requests = {"agree": round_.agree_request("AT"), "answer": round_.answer_request("AT")}
    return world, requests, before


@settings(deadline=None)
@given(st.sampled_from(["agree", "answer"]), st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_request_after_a_drop_out_is_refused(
    phase: str, position: int, mask: int
) -> None:
    """Except its sealed shares and the commitments to them, which follow: see the next test."""
    world, requests, before = dropped_out()
    run = CountryRun.from_bytes(before, view_of("AT", world.terms))
    request = requests[phase]
    signed_length = sealed_from(request) if phase == "answer" else len(request)
    with pytest.raises(Refusal):
        getattr(run, phase)(changed(requests[phase], position % signed_length, mask))
    assert run.to_bytes() == before
    getattr(run, phase)(requests[phase])


@settings(deadline=None)
@given(st.integers(0, 2 * SEALED_BYTES - 1), st.integers(1, 255))
def test_a_changed_share_beside_a_request_does_not_open_and_the_other_does(
    position: int, mask: int
) -> None:
    world, requests, before = dropped_out()
    owners, request = ("BE", "CZ"), requests["answer"]
    honest, lied = (
        answer_of(CountryRun.from_bytes(before, view_of("AT", world.terms)).answer(frame))
        for frame in (request, changed(request, sealed_from(request) + position, mask))
    )
    garbled = position // SEALED_BYTES
    assert list(lied.unopenable) == [owners[garbled]]
    shares = split_parts(honest.shares, ("AT", *owners), SHARE_BYTES)
    shares[owners[garbled]] = NOTHING
    assert lied.shares == b"".join(shares.values())
    assert (lied.masks, list(honest.unopenable)) == (honest.masks, [])


def sealed_from(request: bytes) -> int:
    """Return the position of the first sealed share in a request to answer."""
    return request.rindex(Envelope.FromString(request).parts)


def answer_of(reply: bytes) -> Answer:
    return Answer.FromString(Reply.FromString(reply).answer.body)


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_reply_with_one_byte_changed_never_opens_to_another_sum(position: int, mask: int) -> None:
    world, _, reply, _ = after_one_contribution()
    fresh = ProtocolWorld(world.terms, world.twin(), dict(world.countries))
    round_ = fresh.coordinator.begin_round(1, "train", MODEL)
    try:
        round_.take_contribution("AT", changed(reply, position, mask))
    except ProtocolFault:
        return
    head = round_._heads["AT"]
    assert head == world_head(reply), "only bytes sealed for another country may differ"


def world_head(reply: bytes) -> object:
    return Reply.FromString(reply).contribution.head


@given(st.binary(max_size=200))
def test_bytes_from_outside_open_or_are_refused(data: bytes) -> None:
    world, _, _, before = after_one_contribution()
    run = CountryRun.from_bytes(before, view_of("AT", world.terms))
    round_ = world.twin().begin_round(1, "train", MODEL)
    zeros = np.zeros(TRAIN.dimension, np.int64)
    for read in (
        read_request,
        run.bundle,
        run.encapsulate,
        run.confirm,
        run.admit,
        lambda request: run.contribute(request, zeros, zeros),
        run.agree,
        run.answer,
        lambda reply: world.coordinator.take_bundle("AT", reply),
        lambda reply: world.coordinator.take_encapsulation("AT", reply),
        lambda reply: world.coordinator.take_confirmation("AT", reply),
        lambda reply: round_.take_contribution("AT", reply),
        lambda reply: round_.take_assent("AT", reply),
        lambda reply: round_.take_answer("AT", reply),
        lambda stored: CountryRun.from_bytes(stored, view_of("AT", world.terms)),
    ):
        with suppress(ProtocolFault):
            read(data)
    assert run.to_bytes() == before
