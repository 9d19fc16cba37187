"""Countries that send garbage or collude can spoil a sum, but not the privacy of others.

Every test uses the real state machines of both sides; the attacker has the coordinator's key.
"""

import os

import numpy as np
import pytest
from blake3 import blake3

from protocols.errors import ProtocolFault
from protocols.private_sum import shares
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.private_sum.country_round import NOTHING
from protocols.proto.round_pb2 import (
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    Answer,
    ContributionHead,
    Reply,
)
from protocols.wire.signed_message import (
    COORDINATOR,
    ROSTER,
    bind,
    serialise,
)
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    TRAIN,
    ZEROS,
    ProtocolWorld,
    altered_request,
    state_of,
    with_body,
)


def garbled(reply: bytes, words: bytes, country: str) -> bytes:
    """Return a contribution with other words, which the country signs."""
    reply_message = Reply.FromString(reply)
    head = ContributionHead.FromString(reply_message.contribution.head.body)
    signed = reply_message.contribution.head
    digest = blake3(words).digest()
    head.words_digest = bind(signed.context, PHASE_CONTRIBUTE, country, COORDINATOR, digest)
    reply_message.words = words
    signed.CopyFrom(with_body(signed, serialise(head), IDENTITIES[country]))
    return serialise(reply_message)


@pytest.mark.parametrize("size", [0, 8, 15, 32, 800], ids=lambda size: f"{size}-bytes")
def test_a_vector_of_another_length_is_refused_and_a_correct_one_may_follow(size: int) -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["AT"].contribute(opened.contribute_request("AT"), ZEROS, ZEROS)
    with pytest.raises(ProtocolFault, match="AT"):
        opened.take_contribution("AT", garbled(reply, os.urandom(size), "AT"))
    assert not opened.contributed
    opened.take_contribution("AT", reply)
    assert opened.contributed == ("AT",)


def test_words_that_were_not_signed_are_refused() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["AT"].contribute(opened.contribute_request("AT"), ZEROS, ZEROS)
    reply_message = Reply.FromString(reply)
    for other in (
        bytes(len(reply_message.words)),
        reply_message.words[:-1] + bytes([reply_message.words[-1] ^ 1]),
    ):
        reply_message.words = other
        with pytest.raises(ProtocolFault, match="words of AT are not those that it signed"):
            opened.take_contribution("AT", serialise(reply_message))
    assert opened.contributed == ()


def test_garbage_words_spoil_the_sum_and_the_checks_say_so() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["AT"].contribute(opened.contribute_request("AT"), ZEROS, ZEROS)
    opened.take_contribution("AT", garbled(reply, os.urandom(8 * opened.terms.words), "AT"))
    for country in ("BE", "CZ"):
        world.contribute(opened, country)
    honest = Reply.FromString(reply).contribution.head
    own = altered_request(
        opened.answer_request("AT"), lambda body: body.answer.heads[0].CopyFrom(honest)
    )
    opened.take_answer("AT", world.countries["AT"].answer(own))
    for country in ("BE", "CZ"):
        world.answer(opened, country)
    assert opened.open() == VoidRound("the check coordinates of the sum are not zero", ())


@pytest.mark.parametrize(
    "values",
    [np.full(5, 2**62), np.full(5, -(2**63)), np.full(5, np.iinfo(np.int64).max)],
    ids=["huge", "most-negative", "largest"],
)
def test_huge_and_negative_values_spoil_the_sum_at_most(values: np.ndarray) -> None:
    world = ProtocolWorld.ready(3)
    result = world.sum(1, "train", {"AT": values, "BE": ZEROS, "CZ": ZEROS})
    assert isinstance(result, OpenedSum | VoidRound)
    after = world.sum(2, "train", dict.fromkeys(world.terms.roster, ZEROS + 1))
    assert isinstance(after, OpenedSum)
    assert (after.values == 3).all()


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4, np.int64),
        np.zeros(6, np.int64),
        np.zeros((5, 1), np.int64),
        np.full(5, np.nan),
        np.zeros(5, np.int32),
    ],
    ids=["short", "long", "matrix", "not-a-number", "narrow"],
)
def test_a_vector_that_is_not_the_rounds_never_leaves(values: np.ndarray) -> None:
    world = ProtocolWorld.ready(3)
    request = world.coordinator.begin_round(1, "train", MODEL).contribute_request("AT")
    before = world.countries["AT"].to_bytes()
    for arguments in ((values, ZEROS), (ZEROS, values)):
        with pytest.raises(ProtocolFault, match="shape"):
            world.countries["AT"].contribute(request, *arguments)
    assert world.countries["AT"].to_bytes() == before


def test_an_inconsistent_seed_is_attributed_to_its_owner() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    reply = Reply.FromString(
        world.countries["AT"].contribute(opened.contribute_request("AT"), ZEROS, ZEROS)
    )
    signed = reply.contribution.head
    head = ContributionHead.FromString(signed.body)
    head.seed_commitment = os.urandom(32)
    signed.CopyFrom(with_body(signed, serialise(head), IDENTITIES["AT"]))
    opened.take_contribution("AT", serialise(reply))
    for country in ("BE", "CZ"):
        world.contribute(opened, country)
    for country in ("BE", "CZ"):
        world.answer(opened, country)
    honest_share = state_of(world.countries["AT"]).open_round
    assert honest_share is not None
    given = Answer(
        round=1,
        shares=honest_share.own_share + 2 * NOTHING,
        unopenable=["BE", "CZ"],
    )
    lie = with_body(
        signed, serialise(given), IDENTITIES["AT"], phase=PHASE_ANSWER, receiver=COORDINATOR
    )
    opened.take_answer("AT", serialise(Reply(answer=lie)))
    result = opened.open()
    assert isinstance(result, VoidRound)
    assert "AT" in result.missing


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_colluders_and_one_half_of_the_honest_do_not_open_a_seed(size: int) -> None:
    """t is more than c plus half of the honest: fewer shares give an unrelated seed."""
    world = ProtocolWorld.ready(size, colluding=size - 2, honest=2)
    opened = world.contributed()
    threshold = world.terms.threshold
    for country in world.terms.roster:
        world.answer(opened, country)
    given = {
        country: owner_shares["AT"] for country, owner_shares in opened._answers._shares.items()
    }
    points = {world.terms.roster.index(country) + 1: share for country, share in given.items()}
    assert threshold > world.terms.colluding + 1
    few = dict(list(points.items())[: threshold - 1])
    enough = dict(list(points.items())[:threshold])
    commitment = opened._signed["AT"].seed_commitment
    context = opened.terms.context
    assert shares.commit(context, "AT", ROSTER, shares.combine(enough)) == commitment
    assert shares.commit(context, "AT", ROSTER, shares.combine(few)) != commitment
    assert isinstance(opened.open(), OpenedSum)


def test_too_few_answers_open_nothing() -> None:
    world = ProtocolWorld.ready(5)
    opened = world.contributed()
    for country in world.terms.roster[: world.terms.threshold - 1]:
        world.answer(opened, country)
    result = opened.open()
    assert isinstance(result, VoidRound)
    assert result.missing == world.terms.roster[world.terms.threshold - 1 :]
    world.answer(opened, result.missing[0])
    assert isinstance(opened.open(), OpenedSum)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_an_undisturbed_run_opens_exact_sums(size: int) -> None:
    world = ProtocolWorld.ready(size)
    for number in (1, 2, 3):
        values = {c: ZEROS + i * number - 2 for i, c in enumerate(world.terms.roster)}
        result = world.sum(number, "train", values)
        assert isinstance(result, OpenedSum)
        assert (result.values == sum(values.values())).all()
        assert result.variance == size * TRAIN.noise_std**2
        assert result.unopenable == ()


def test_one_contribution_alone_looks_like_noise() -> None:
    """The words of equal vectors in equal contexts have no value in common."""
    sent = []
    for _ in range(2):
        world = ProtocolWorld.ready(3)
        opened = world.coordinator.begin_round(1, "train", MODEL)
        reply = Reply.FromString(world.contribute(opened, "AT"))
        sent.append(np.frombuffer(reply.words, np.uint64))
    assert not set(sent[0]) & set(sent[1])
    assert (sent[0] > 2**32).any()
