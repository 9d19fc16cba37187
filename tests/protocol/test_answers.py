"""Requests for shares: for another or a smaller U, repeated, too late, with substituted shares.

Every test uses the real state machines of both sides; the attacker has the coordinator's key.
"""

import os
from functools import partial

import pytest

from keys.identity import SigningKey
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.country_round import NOTHING
from protocols.private_sum.messages import SEALED_BYTES
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    Answer,
    ContributionHead,
    Reply,
    RequestBody,
)
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ProtocolWorld,
    altered_request,
    parts_of,
    refused,
    state_of,
    with_body,
)


@pytest.mark.parametrize(
    "countries",
    [
        ("AT", "BE"),
        ("AT",),
        (),
        ("BE", "CZ"),
        ("AT", "BE", "CZ", "DK"),
        ("AT", "AT", "BE"),
        ("CZ", "BE", "AT"),
    ],
    ids=lambda names: "-".join(names) or "none",
)
def test_a_set_other_than_the_roster_is_not_answered(countries: tuple[str, ...]) -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()

    def name(body: RequestBody) -> None:
        body.answer.countries[:] = countries

    def name_with_heads(body: RequestBody) -> None:
        name(body)
        heads = [head for head in body.answer.heads if head.sender in countries]
        del body.answer.heads[:]
        body.answer.heads.extend(heads)

    honest = round_.answer_request("AT")
    sealed = zip(("BE", "CZ"), parts_of(honest, SEALED_BYTES), strict=True)
    parts = [part for owner, part in sealed if owner in countries]
    for request in (
        altered_request(honest, name),
        altered_request(honest, name_with_heads, parts=parts),
    ):
        with refused(world.countries["AT"], ReasonCode.ROSTER):
            world.countries["AT"].answer(request)
    world.answer(round_, "AT")


def test_a_falsely_claimed_drop_out_opens_nothing_when_the_contribution_arrives() -> None:
    """Some are shown a request without CZ and refuse, so CZ's late contribution stays hidden."""
    world = ProtocolWorld.ready(4)
    round_ = world.contributed()
    dropped = ("AT", "BE", "DK")

    def without(body: RequestBody) -> None:
        body.answer.countries[:] = dropped

    for country in dropped:
        with refused(world.countries[country], ReasonCode.ROSTER):
            world.countries[country].answer(
                altered_request(round_.answer_request(country), without)
            )
    result = round_.open()
    assert isinstance(result, VoidRound)


def test_a_country_answers_once() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()
    request = round_.answer_request("AT")
    world.answer(round_, "AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(request)
    world.restart("AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(request)


def test_a_void_round_is_not_answered_after_the_next_began() -> None:
    world = ProtocolWorld.ready(3)
    late = world.contributed(1).answer_request("AT")
    world.contributed(2)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(late)


def test_a_country_that_did_not_contribute_does_not_answer() -> None:
    world = ProtocolWorld.ready(3)
    request = world.contributed(1).answer_request("AT")
    silent = ProtocolWorld.ready(3).countries["AT"]
    with refused(silent, ReasonCode.STALE):
        silent.answer(request)


def test_an_answer_needs_a_sealed_share_and_a_head_from_every_country() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()
    run, honest = world.countries["AT"], round_.answer_request("AT")
    sealed = parts_of(honest, SEALED_BYTES)
    for request in (
        altered_request(honest, lambda body: body.answer.heads.pop()),
        altered_request(honest, parts=sealed[:1]),
        altered_request(honest, parts=[]),
        altered_request(honest, parts=[*sealed, sealed[0]]),
        altered_request(honest, parts=[*sealed, b"0"]),
    ):
        with refused(run, ReasonCode.ROSTER):
            run.answer(request)
    run.answer(honest)


def _numbered(step: str, number: int, body: RequestBody) -> None:
    getattr(body, step).round = number


def test_a_request_whose_body_names_another_round_is_refused() -> None:
    """The context names the round too; the signed content must not contradict it."""
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    round_ = world.coordinator.begin_round(2, "train", MODEL)
    for country in ("AT", "BE", "CZ"):
        world.contribute(round_, country)
    round_.close()
    for number in (1, 3):
        other = altered_request(round_.agree_request("AT"), partial(_numbered, "agree", number))
        with refused(world.countries["AT"], ReasonCode.STALE):
            world.countries["AT"].agree(other)
    for country in round_.contributed:
        world.agree(round_, country)
    request = round_.answer_request("AT")
    for number in (1, 3):
        other = altered_request(request, partial(_numbered, "answer", number))
        with refused(world.countries["AT"], ReasonCode.STALE):
            world.countries["AT"].answer(other)
    world.countries["AT"].answer(request)


def test_a_head_of_another_round_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()

    def misdate(body: RequestBody) -> None:
        message = body.answer.heads[1]
        head = ContributionHead.FromString(message.body)
        head.round += 1
        message.CopyFrom(with_body(message, serialise(head), IDENTITIES["BE"]))

    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].answer(altered_request(round_.answer_request("AT"), misdate))


def test_a_head_in_the_name_of_another_country_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()

    def forge(body: RequestBody) -> None:
        head = body.answer.heads[1]
        head.CopyFrom(with_body(head, head.body, SigningKey.generate()))

    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        world.countries["AT"].answer(altered_request(round_.answer_request("AT"), forge))


def test_a_head_that_the_country_itself_did_not_send_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()

    def forge(body: RequestBody) -> None:
        message = body.answer.heads[0]
        head = ContributionHead.FromString(message.body)
        head.words_digest = bytes(32)
        message.CopyFrom(with_body(message, serialise(head), IDENTITIES["AT"]))

    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC):
        world.countries["AT"].answer(altered_request(round_.answer_request("AT"), forge))


def test_an_answer_request_does_not_pass_as_an_agree_request() -> None:
    world = ProtocolWorld.ready(3)
    request = altered_request(world.contributed().answer_request("AT"), phase=PHASE_AGREE)
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].agree(request)
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].answer(request)


def test_a_contribute_request_does_not_pass_as_an_answer_request() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()
    request = altered_request(round_.contribute_request("AT"), phase=PHASE_ANSWER)
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].answer(request)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(round_.contribute_request("AT"))


def test_a_substituted_share_is_reported_and_the_others_are_given() -> None:
    world = ProtocolWorld.ready(4, colluding=1, honest=3)
    round_ = world.contributed()

    honest = round_.answer_request("AT")
    parts = [os.urandom(SEALED_BYTES), *parts_of(honest, SEALED_BYTES)[1:]]
    reply = world.countries["AT"].answer(altered_request(honest, parts=parts))
    round_.take_answer("AT", reply)
    for country in ("BE", "CZ", "DK"):
        world.answer(round_, country)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("AT", "BE"),)


def test_swapped_shares_of_two_countries_do_not_open() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()

    open_round = state_of(world.countries["AT"]).open_round
    assert open_round is not None
    honest = round_.answer_request("AT")
    one, other = parts_of(honest, SEALED_BYTES)
    reply = world.countries["AT"].answer(altered_request(honest, parts=[other, one]))
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert answer.shares == open_round.own_share + 2 * NOTHING
    assert list(answer.unopenable) == ["BE", "CZ"]


def test_a_share_of_an_earlier_round_does_not_open() -> None:
    world = ProtocolWorld.ready(3)
    past = world.contributed(1)
    round_ = world.contributed(2)

    honest = round_.answer_request("AT")
    parts = [past._sealed["BE"][:SEALED_BYTES], *parts_of(honest, SEALED_BYTES)[1:]]
    reply = world.countries["AT"].answer(altered_request(honest, parts=parts))
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert list(answer.unopenable) == ["BE"]
    assert answer.shares[32:64] == NOTHING


def take_wrong(world: ProtocolWorld, round_: CoordinatorRound, index: int) -> None:
    """Let AT answer with an invalid share of the country at this position."""
    signed = Reply.FromString(world.countries["AT"].answer(round_.answer_request("AT"))).answer
    answer = Answer.FromString(signed.body)
    start = 32 * index
    answer.shares = answer.shares[:start] + os.urandom(32) + answer.shares[start + 32 :]
    forged_message = with_body(signed, serialise(answer), IDENTITIES["AT"])
    round_.take_answer("AT", serialise(Reply(answer=forged_message)))


def test_a_wrong_share_of_a_holder_is_reported_and_skipped() -> None:
    world = ProtocolWorld.ready(4, colluding=1, honest=3)
    round_ = world.contributed()
    for country in ("BE", "CZ", "DK"):
        world.answer(round_, country)
    take_wrong(world, round_, 2)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("AT", "CZ"),)


def test_a_share_that_differs_from_its_commitment_is_reported_and_skipped() -> None:
    """It is checked once another holder's wrong share, AT's here, kept the seed from coming out."""
    world = ProtocolWorld.ready(6, colluding=0, honest=2)
    round_ = world.contributed()
    other = round_._commitments["BE"][:32]
    round_._commitments["BE"] = other + os.urandom(32) + round_._commitments["BE"][64:]
    for country in world.terms.roster[1:]:
        world.answer(round_, country)
    take_wrong(world, round_, 1)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 0).all()
    assert result.unopenable == (("AT", "BE"), ("BE", "BE"))
