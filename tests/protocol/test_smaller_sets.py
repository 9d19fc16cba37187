"""A lying coordinator and sums over fewer countries than the roster: who signs, what opens.

Every test uses real countries. It checks what the liar could open of the round with everything it
has (`tests.support.adversary_state`), and makes the liar ask every country for more at the end.
"""

import os
from collections.abc import Callable

import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.proto.round_pb2 import (
    Answer,
    ContributionHead,
    Reply,
)
from protocols.wire.signed_message import serialise
from tests.support.lying_coordinator import (
    ROSTER,
    WITHOUT_DK,
    WITHOUT_EE,
    LyingCoordinator,
    five,
)
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ZEROS,
    ProtocolWorld,
    refused,
    state_of,
    with_body,
)


def four() -> LyingCoordinator:
    """Return a liar with the countries AT, BE, CZ and DK, nobody colluding: t = 3, h = 2."""
    return LyingCoordinator(ProtocolWorld.ready(4, colluding=0, honest=2))


# ---- sets that may open


@pytest.mark.parametrize("late", ["AT", "CZ"])
def test_the_set_of_remaining_countries_opens_and_nothing_else(late: str) -> None:
    liar = five()
    left = tuple(country for country in ROSTER if country != late)
    round_ = liar.contributed(without=(late,))
    liar.agree_all(round_, left)
    assert liar.opens(round_) == ()
    liar.answer_all(round_, left)
    assert liar.opens(round_) == (left[:3],)
    assert liar.press(round_) == (left[:3],)


def masks_of(world: ProtocolWorld, country: str) -> dict[str, bytes]:
    """Return the keys of a country's masks in its open round, by the other country."""
    open_round = state_of(world.countries[country]).open_round
    assert open_round is not None
    return dict(open_round.masks)


def test_an_answer_holds_no_mask_key_of_a_pair_inside_the_set() -> None:
    liar = five()
    round_ = liar.contributed(without=("CZ",))
    left = ("AT", "BE", "DK", "EE")
    inside = {country: masks_of(liar.world, country) for country in ("AT", "BE", "DK")}
    liar.agree_all(round_, left)
    for country in ("AT", "BE", "DK"):
        signed = Reply.FromString(liar.answer(round_, country, left)).answer
        answer = Answer.FromString(signed.body)
        sent_keys = [key for name, key in inside[country].items() if name != "CZ"]
        assert answer.masks == inside[country]["CZ"]
        assert not [key for key in sent_keys if key in answer.SerializeToString()]
        assert (len(answer.shares), list(answer.unopenable)) == (32 * len(left), [])
    assert liar.opens(round_) == (("AT", "BE", "DK"),)


# ---- different sets, and the roster beside a smaller one


def test_different_sets_for_different_countries_open_nothing() -> None:
    """The liar claims to AT that DK dropped out, to DK that AT did; each set lacks a signature."""
    liar = four()
    round_ = liar.contributed()
    one, other = ("AT", "BE", "CZ"), ("BE", "CZ", "DK")
    for country, chosen in (("AT", one), ("BE", one), ("CZ", other), ("DK", other)):
        liar.agree(round_, country, chosen)
    for country, chosen in (("AT", one), ("BE", one), ("CZ", other), ("DK", other)):
        with refused(liar.world.countries[country], ReasonCode.ROSTER, naming="agreed"):
            liar.answer(round_, country, chosen)
    for country in ("AT", "BE", "CZ", "DK"):
        with refused(liar.world.countries[country], ReasonCode.ROSTER, naming="agreed"):
            liar.answer(round_, country, liar.honest)
    assert liar.opens(round_) == ()
    assert liar.press(round_) == ()


def test_two_sets_signed_by_colluders_open_nothing_beside_each_other() -> None:
    """EE and DK sign both; the one honest country that both sets need signs one."""
    liar = five(colluding=2)
    round_ = liar.contributed()
    one, other = ("AT", "BE", "DK", "EE"), ("BE", "CZ", "DK", "EE")
    liar.agree_all(round_, one)
    liar.agree(round_, "CZ", other)
    with refused(liar.world.countries["BE"], ReasonCode.STALE, naming="once"):
        liar.agree(round_, "BE", other)
    with refused(liar.world.countries["CZ"], ReasonCode.ROSTER):
        liar.answer(round_, "CZ", other)
    liar.answer_all(round_, one)
    assert liar.opens(round_) == (("AT", "BE"),)
    assert liar.press(round_) == (("AT", "BE"),)


def test_showing_the_roster_to_some_and_a_smaller_set_to_others_opens_one_of_them() -> None:
    liar = five()
    round_ = liar.contributed()
    for country in ("AT", "BE"):
        liar.agree(round_, country, WITHOUT_DK)
    for country in ("CZ", "DK"):
        liar.answer(round_, country, ROSTER)
    for country in ("AT", "BE"):
        for chosen in (WITHOUT_DK, ROSTER):
            with refused(liar.world.countries[country], ReasonCode.ROSTER):
                liar.answer(round_, country, chosen)
    assert liar.opens(round_) == ()
    assert liar.press(round_) == ()


def test_a_country_that_answered_for_the_roster_signs_no_smaller_set() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.answer(round_, "AT", ROSTER)
    with refused(liar.world.countries["AT"], ReasonCode.STALE):
        liar.agree(round_, "AT", WITHOUT_DK)
    assert liar.opens(round_) == ()
    for country in ("BE", "CZ"):
        liar.answer(round_, country, ROSTER)
    assert liar.press(round_) == (WITHOUT_EE,)


# ---- falsely claimed drop-outs


def test_a_late_contribution_is_not_opened() -> None:
    """The liar claims that CZ dropped out, and opens the others' sum; then CZ's words arrive."""
    liar = five()
    round_ = liar.contributed(without=("CZ",))
    left = ("AT", "BE", "DK", "EE")
    liar.agree_all(round_, left)
    liar.answer_all(round_, left)
    liar.contribute(round_, "CZ")
    assert liar.opens(round_) == (("AT", "BE", "DK"),)
    liar.answer(round_, "CZ", ROSTER)
    assert liar.opens(round_) == (("AT", "BE", "DK"),)
    assert liar.press(round_) == (("AT", "BE", "DK"),)


def test_a_contribution_that_was_held_back_is_not_opened() -> None:
    """The late answer for the roster has shares, but t − c of the others gave none."""
    liar = four()
    round_ = liar.contributed()
    left = ("AT", "BE", "CZ")
    liar.answer(round_, "DK", liar.honest)
    liar.agree_all(round_, left)
    liar.answer_all(round_, left)
    assert liar.opens(round_) == (left,)
    assert liar.press(round_) == (left,)


# ---- repeated requests


def test_a_country_signs_one_set_a_round() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree(round_, "AT", WITHOUT_DK)
    for chosen in (WITHOUT_DK, WITHOUT_EE, ROSTER):
        with refused(
            liar.world.countries["AT"], ReasonCode.STALE if chosen != ROSTER else ReasonCode.ROSTER
        ):
            liar.agree(round_, "AT", chosen)
    assert liar.press(round_) == ()


def test_a_country_answers_for_one_set_once() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)
    liar.answer_all(round_, WITHOUT_DK)
    for chosen in (WITHOUT_DK, WITHOUT_EE, ROSTER):
        with refused(liar.world.countries["AT"], ReasonCode.STALE):
            liar.answer(round_, "AT", chosen)
        with refused(liar.world.countries["AT"], ReasonCode.STALE):
            liar.agree(round_, "AT", chosen)
    assert liar.opens(round_) == (("AT", "BE", "CZ"),)
    assert liar.press(round_) == (("AT", "BE", "CZ"),)


def test_a_country_that_signed_a_smaller_set_does_not_answer_for_the_roster() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)
    for country in ("AT", "BE", "CZ"):
        with refused(liar.world.countries[country], ReasonCode.ROSTER, naming="AT, BE, CZ, EE"):
            liar.answer(round_, country, ROSTER)
    liar.answer(round_, "DK", ROSTER)
    assert liar.opens(round_) == ()
    assert liar.press(round_) == (("AT", "BE", "CZ"),)


def test_a_restart_forgets_neither_a_signature_nor_an_answer() -> None:
    liar = five()
    round_ = liar.contributed()
    for country in ("AT", "BE", "CZ"):
        liar.world.restart(country)
        liar.agree(round_, country, WITHOUT_DK)
        liar.world.restart(country)
        with refused(liar.world.countries[country], ReasonCode.STALE):
            liar.agree(round_, country, WITHOUT_EE)
        with refused(liar.world.countries[country], ReasonCode.ROSTER):
            liar.answer(round_, country, ROSTER)
    for country in ("AT", "BE", "CZ"):
        liar.world.restart(country)
        liar.answer(round_, country, WITHOUT_DK)
        liar.world.restart(country)
    assert liar.opens(round_) == (("AT", "BE", "CZ"),)
    assert liar.press(round_) == (("AT", "BE", "CZ"),)


# ---- members that send garbage


def closed(world: ProtocolWorld, without: str) -> CoordinatorRound:
    """Return an agreed round of an honest coordinator, from which one country is missing."""
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country in world.terms.roster:
        if country != without:
            world.contribute(round_, country, ZEROS + 1)
    for country in round_.close():
        world.agree(round_, country)
    return round_


def with_answer(reply: bytes, country: str, change: Callable[[Answer], object]) -> bytes:
    signed = Reply.FromString(reply).answer
    answer = Answer.FromString(signed.body)
    change(answer)
    return serialise(Reply(answer=with_body(signed, serialise(answer), IDENTITIES[country])))


def test_a_wrong_mask_key_of_a_member_voids_the_round_and_the_next_one_opens() -> None:
    world = ProtocolWorld.ready(5, colluding=1, honest=2)
    round_ = closed(world, "EE")
    for country in ("BE", "CZ", "DK"):
        world.answer(round_, country)
    reply = world.countries["AT"].answer(round_.answer_request("AT"))

    def garble(answer: Answer) -> None:
        answer.masks = os.urandom(32)

    round_.take_answer("AT", with_answer(reply, "AT", garble))
    assert round_.open() == VoidRound("the check coordinates of the sum are not zero", ())
    after = world.sum(2, "train", dict.fromkeys(ROSTER, ZEROS + 1))
    assert isinstance(after, OpenedSum)
    assert (after.values == 5).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda masks: masks + b"0",
        lambda masks: masks[:-1],
        lambda masks: b"",
        lambda masks: masks + masks,
        lambda masks: masks + os.urandom(3 * 32),
    ],
    ids=["longer", "shorter", "none", "twice", "inside"],
)
def test_mask_keys_of_other_countries_than_those_outside_the_set_are_refused(
    change: Callable[[bytes], bytes],
) -> None:
    """There is one position for each country outside the set, and none for others."""
    world = ProtocolWorld.ready(5, colluding=1, honest=2)
    round_ = closed(world, "EE")
    reply = world.countries["AT"].answer(round_.answer_request("AT"))

    def changed(answer: Answer) -> None:
        answer.masks = change(answer.masks)

    with pytest.raises(Refusal) as refusal:
        round_.take_answer("AT", with_answer(reply, "AT", changed))
    assert refusal.value.code is ReasonCode.ROSTER
    assert round_.answered == ()
    round_.take_answer("AT", reply)
    for country in ("BE", "CZ", "DK"):
        world.answer(round_, country)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 4).all()


def test_a_member_whose_seed_does_not_come_out_voids_the_round_and_learns_nothing() -> None:
    """EE commits to a seed that its shares do not give: round void, and nothing else opens."""
    liar = five()
    round_ = liar.begin()
    for country in ("AT", "BE", "CZ"):
        liar.contribute(round_, country)
    reply = Reply.FromString(liar.contribute(round_, "EE"))
    head = ContributionHead.FromString(reply.contribution.head.body)
    head.seed_commitment = os.urandom(32)
    forged_message = with_body(reply.contribution.head, serialise(head), IDENTITIES["EE"])
    liar.adversary_state.contributions(round_.terms.context)["EE"].contribution.head.CopyFrom(
        forged_message
    )
    liar.agree_all(round_, WITHOUT_DK)
    liar.answer_all(round_, WITHOUT_DK)
    assert liar.opens(round_) == (("AT", "BE", "CZ"),)
    assert liar.press(round_) == (("AT", "BE", "CZ"),)
