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
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["AT"].contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    with pytest.raises(ProtocolFault, match="AT"):
        round_.take_contribution("AT", garbled(reply, os.urandom(size), "AT"))
    assert not round_.contributed
    round_.take_contribution("AT", reply)
    assert round_.contributed == ("AT",)


def test_words_that_were_not_signed_are_refused() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["AT"].contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    reply_message = Reply.FromString(reply)
    for other in (
        bytes(len(reply_message.words)),
        reply_message.words[:-1] + bytes([reply_message.words[-1] ^ 1]),
    ):
        reply_message.words = other
        with pytest.raises(ProtocolFault, match="words of AT are not those that it signed"):
            round_.take_contribution("AT", serialise(reply_message))
    assert round_.contributed == ()


def test_garbage_words_spoil_the_sum_and_the_checks_say_so() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["AT"].contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    round_.take_contribution("AT", garbled(reply, os.urandom(8 * round_.terms.words), "AT"))
    for country in ("BE", "CZ"):
        world.contribute(round_, country)
    honest = Reply.FromString(reply).contribution.head
    true_head_request = altered_request(
        round_.answer_request("AT"), lambda body: body.answer.heads[0].CopyFrom(honest)
    )
    round_.take_answer("AT", world.countries["AT"].answer(true_head_request))
    for country in ("BE", "CZ"):
        world.answer(round_, country)
    assert round_.open() == VoidRound("the check coordinates of the sum are not zero", ())


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
def test_a_vector_of_another_length_than_that_of_the_round_never_leaves(values: np.ndarray) -> None:
    world = ProtocolWorld.ready(3)
    request = world.coordinator.begin_round(1, "train", MODEL).contribute_request("AT")
    before = world.countries["AT"].to_bytes()
    for arguments in ((values, ZEROS), (ZEROS, values)):
        with pytest.raises(ProtocolFault, match="shape"):
            world.countries["AT"].contribute(request, *arguments)
    assert world.countries["AT"].to_bytes() == before


def test_an_inconsistent_seed_is_attributed_to_its_owner() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    reply = Reply.FromString(
        world.countries["AT"].contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    )
    signed = reply.contribution.head
    head = ContributionHead.FromString(signed.body)
    head.seed_commitment = os.urandom(32)
    signed.CopyFrom(with_body(signed, serialise(head), IDENTITIES["AT"]))
    round_.take_contribution("AT", serialise(reply))
    for country in ("BE", "CZ"):
        world.contribute(round_, country)
    for country in ("BE", "CZ"):
        world.answer(round_, country)
    honest_share = state_of(world.countries["AT"]).open_round
    assert honest_share is not None
    given = Answer(
        round=1,
        shares=honest_share.own_share + 2 * NOTHING,
        unopenable=["BE", "CZ"],
    )
    forged_message = with_body(
        signed, serialise(given), IDENTITIES["AT"], phase=PHASE_ANSWER, receiver=COORDINATOR
    )
    round_.take_answer("AT", serialise(Reply(answer=forged_message)))
    result = round_.open()
    assert isinstance(result, VoidRound)
    assert "AT" in result.missing


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_colluders_and_one_half_of_the_honest_do_not_open_a_seed(size: int) -> None:
    """t is more than c plus half of the honest: fewer shares give an unrelated seed."""
    world = ProtocolWorld.ready(size, colluding=size - 2, honest=2)
    round_ = world.contributed()
    threshold = world.terms.threshold
    for country in world.terms.roster:
        world.answer(round_, country)
    given = {
        country: owner_shares["AT"] for country, owner_shares in round_._answers._shares.items()
    }
    points = {world.terms.roster.index(country) + 1: share for country, share in given.items()}
    assert threshold > world.terms.colluding + 1
    few = dict(list(points.items())[: threshold - 1])
    enough = dict(list(points.items())[:threshold])
    commitment = round_._signed["AT"].seed_commitment
    context = round_.terms.context
    assert shares.commit(context, "AT", ROSTER, shares.combine(enough)) == commitment
    assert shares.commit(context, "AT", ROSTER, shares.combine(few)) != commitment
    assert isinstance(round_.open(), OpenedSum)


def test_too_few_answers_open_nothing() -> None:
    world = ProtocolWorld.ready(5)
    round_ = world.contributed()
    for country in world.terms.roster[: world.terms.threshold - 1]:
        world.answer(round_, country)
    result = round_.open()
    assert isinstance(result, VoidRound)
    assert result.missing == world.terms.roster[world.terms.threshold - 1 :]
    world.answer(round_, result.missing[0])
    assert isinstance(round_.open(), OpenedSum)


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
        round_ = world.coordinator.begin_round(1, "train", MODEL)
        reply = Reply.FromString(world.contribute(round_, "AT"))
        sent.append(np.frombuffer(reply.words, np.uint64))
    assert not set(sent[0]) & set(sent[1])
    assert (sent[0] > 2**32).any()
