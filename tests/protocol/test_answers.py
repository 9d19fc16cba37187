"""Asked for shares: another U, a smaller U, twice, too late, with substituted shares.

Every test drives the real state machines of both sides; the attacker has the coordinator's key.
"""

import os

import pytest

from keys.identity import SigningKey
from protocols.errors import ReasonCode
from protocols.private_sum.opening import OpenedSum, VoidRound
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    Answer,
    ContributionHead,
    Reply,
    RequestBody,
)
from protocols.signed import serialise
from tests.support.federation import (
    IDENTITIES,
    World,
    refused,
    retold,
    spoken,
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
    world = World.ready(3)
    opened = world.contributed()

    def name(body: RequestBody) -> None:
        body.answer.countries[:] = countries

    def name_with_parts(body: RequestBody) -> None:
        name(body)
        kept = [head for head in body.answer.heads if head.sender in countries]
        parts = [part for part in body.answer.shares if part.country in countries]
        del body.answer.heads[:], body.answer.shares[:]
        body.answer.heads.extend(kept)
        body.answer.shares.extend(parts)

    for change in (name, name_with_parts):
        with refused(world.countries["AT"], ReasonCode.ROSTER):
            world.countries["AT"].answer(retold(opened.answer_request("AT"), change))
    world.answer(opened, "AT")


def test_a_claimed_drop_out_opens_nothing_when_the_contribution_comes_late() -> None:
    """Some are told that CZ dropped; they refuse, so its late words meet no smaller opening."""
    world = World.ready(4)
    opened = world.contributed()
    dropped = ("AT", "BE", "DK")

    def without(body: RequestBody) -> None:
        body.answer.countries[:] = dropped

    for country in dropped:
        with refused(world.countries[country], ReasonCode.ROSTER):
            world.countries[country].answer(retold(opened.answer_request(country), without))
    result = opened.open()
    assert isinstance(result, VoidRound)


def test_a_share_is_given_once() -> None:
    world = World.ready(3)
    opened = world.contributed()
    request = opened.answer_request("AT")
    world.answer(opened, "AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(request)
    world.restart("AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(request)


def test_a_void_round_is_not_answered_after_the_next_began() -> None:
    world = World.ready(3)
    late = world.contributed(1).answer_request("AT")
    world.contributed(2)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(late)


def test_a_country_that_did_not_contribute_does_not_answer() -> None:
    world = World.ready(3)
    request = world.contributed(1).answer_request("AT")
    silent = World.ready(3).countries["AT"]
    with refused(silent, ReasonCode.STALE):
        silent.answer(request)


def test_an_answer_needs_a_sealed_share_and_a_head_from_every_country() -> None:
    world = World.ready(3)
    opened = world.contributed()
    run, honest = world.countries["AT"], opened.answer_request("AT")
    for part in ("shares", "heads"):
        request = retold(honest, lambda body, part=part: getattr(body.answer, part).pop())
        with refused(run, ReasonCode.ROSTER):
            run.answer(request)


def test_a_head_in_anothers_name_is_refused() -> None:
    world = World.ready(3)
    opened = world.contributed()

    def forge(body: RequestBody) -> None:
        head = body.answer.heads[1]
        head.CopyFrom(spoken(head, head.body, SigningKey.generate()))

    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        world.countries["AT"].answer(retold(opened.answer_request("AT"), forge))


def test_an_own_head_that_was_not_sent_is_refused() -> None:
    world = World.ready(3)
    opened = world.contributed()

    def forge(body: RequestBody) -> None:
        message = body.answer.heads[0]
        head = ContributionHead.FromString(message.body)
        head.words_digest = bytes(32)
        message.CopyFrom(spoken(message, serialise(head), IDENTITIES["AT"]))

    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC):
        world.countries["AT"].answer(retold(opened.answer_request("AT"), forge))


def test_an_answer_request_does_not_pass_as_an_agree_request() -> None:
    world = World.ready(3)
    request = retold(world.contributed().answer_request("AT"), phase=PHASE_AGREE)
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].agree(request)
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].answer(request)


def test_a_contribute_request_does_not_pass_as_an_answer_request() -> None:
    world = World.ready(3)
    opened = world.contributed()
    request = retold(opened.contribute_request("AT"), phase=PHASE_ANSWER)
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        world.countries["AT"].answer(request)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].answer(opened.contribute_request("AT"))


def test_a_substituted_share_is_named_and_the_rest_opens() -> None:
    world = World.ready(4, colluding=1, honest=3)
    opened = world.contributed()

    def swap(body: RequestBody) -> None:
        body.answer.shares[0].content = os.urandom(60)

    reply = world.countries["AT"].answer(retold(opened.answer_request("AT"), swap))
    opened.take_answer("AT", reply)
    for country in ("BE", "CZ", "DK"):
        world.answer(opened, country)
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("AT", "BE"),)


def test_shares_of_two_countries_exchanged_open_for_nobody() -> None:
    world = World.ready(3)
    opened = world.contributed()

    def exchange(body: RequestBody) -> None:
        one, other = body.answer.shares
        one.content, other.content = other.content, one.content

    reply = world.countries["AT"].answer(retold(opened.answer_request("AT"), exchange))
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert [share.country for share in answer.shares] == ["AT"]
    assert list(answer.unopenable) == ["BE", "CZ"]


def test_a_share_of_an_earlier_round_does_not_open() -> None:
    world = World.ready(3)
    past = world.contributed(1)
    opened = world.contributed(2)

    def old(body: RequestBody) -> None:
        body.answer.shares[0].content = past._sealed["BE"]["AT"]

    reply = world.countries["AT"].answer(retold(opened.answer_request("AT"), old))
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert list(answer.unopenable) == ["BE"]


def test_a_wrong_share_by_a_holder_is_named_and_skipped() -> None:
    world = World.ready(4, colluding=1, honest=3)
    opened = world.contributed()
    for country in ("BE", "CZ", "DK"):
        world.answer(opened, country)
    signed = Reply.FromString(world.countries["AT"].answer(opened.answer_request("AT"))).answer
    answer = Answer.FromString(signed.body)
    answer.shares[2].content = os.urandom(32)
    lie = spoken(signed, serialise(answer), IDENTITIES["AT"])
    opened.take_answer("AT", serialise(Reply(answer=lie)))
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("AT", "CZ"),)


def test_a_share_that_is_not_what_its_owner_committed_to_is_named_and_skipped() -> None:
    world = World.ready(4, colluding=1, honest=2)
    opened = world.contributed()
    other = opened._commitments["BE"][:32]
    opened._commitments["BE"] = other + os.urandom(32) + opened._commitments["BE"][64:]
    for country in world.terms.roster:
        world.answer(opened, country)
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("BE", "BE"),)
