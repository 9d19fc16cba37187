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
    opened = liar.contributed(without=(late,))
    liar.agree_all(opened, left)
    assert liar.opens(opened) == ()
    liar.answer_all(opened, left)
    assert liar.opens(opened) == (left[:3],)
    assert liar.press(opened) == (left[:3],)


def masks_of(world: ProtocolWorld, country: str) -> dict[str, bytes]:
    """Return the keys of a country's masks in its open round, by the other country."""
    opened = state_of(world.countries[country]).open_round
    assert opened is not None
    return dict(opened.masks)


def test_an_answer_holds_no_mask_key_of_a_pair_inside_the_set() -> None:
    liar = five()
    opened = liar.contributed(without=("CZ",))
    left = ("AT", "BE", "DK", "EE")
    inside = {country: masks_of(liar.world, country) for country in ("AT", "BE", "DK")}
    liar.agree_all(opened, left)
    for country in ("AT", "BE", "DK"):
        signed = Reply.FromString(liar.answer(opened, country, left)).answer
        answer = Answer.FromString(signed.body)
        sent_keys = [key for name, key in inside[country].items() if name != "CZ"]
        assert answer.masks == inside[country]["CZ"]
        assert not [key for key in sent_keys if key in answer.SerializeToString()]
        assert (len(answer.shares), list(answer.unopenable)) == (32 * len(left), [])
    assert liar.opens(opened) == (("AT", "BE", "DK"),)


# ---- different sets, and the roster beside a smaller one


def test_different_sets_for_different_countries_open_nothing() -> None:
    """The liar claims to AT that DK dropped out, to DK that AT did; each set lacks a signature."""
    liar = four()
    opened = liar.contributed()
    one, other = ("AT", "BE", "CZ"), ("BE", "CZ", "DK")
    for country, chosen in (("AT", one), ("BE", one), ("CZ", other), ("DK", other)):
        liar.agree(opened, country, chosen)
    for country, chosen in (("AT", one), ("BE", one), ("CZ", other), ("DK", other)):
        with refused(liar.world.countries[country], ReasonCode.ROSTER, naming="agreed"):
            liar.answer(opened, country, chosen)
    for country in ("AT", "BE", "CZ", "DK"):
        with refused(liar.world.countries[country], ReasonCode.ROSTER, naming="agreed"):
            liar.answer(opened, country, liar.honest)
    assert liar.opens(opened) == ()
    assert liar.press(opened) == ()


def test_two_sets_signed_by_colluders_open_nothing_beside_each_other() -> None:
    """EE and DK sign both; the one honest country that both sets need signs one."""
    liar = five(colluding=2)
    opened = liar.contributed()
    one, other = ("AT", "BE", "DK", "EE"), ("BE", "CZ", "DK", "EE")
    liar.agree_all(opened, one)
    liar.agree(opened, "CZ", other)
    with refused(liar.world.countries["BE"], ReasonCode.STALE, naming="once"):
        liar.agree(opened, "BE", other)
    with refused(liar.world.countries["CZ"], ReasonCode.ROSTER):
        liar.answer(opened, "CZ", other)
    liar.answer_all(opened, one)
    assert liar.opens(opened) == (("AT", "BE"),)
    assert liar.press(opened) == (("AT", "BE"),)


def test_showing_the_roster_to_some_and_a_smaller_set_to_others_opens_one_of_them() -> None:
    liar = five()
    opened = liar.contributed()
    for country in ("AT", "BE"):
        liar.agree(opened, country, WITHOUT_DK)
    for country in ("CZ", "DK"):
        liar.answer(opened, country, ROSTER)
    for country in ("AT", "BE"):
        for chosen in (WITHOUT_DK, ROSTER):
            with refused(liar.world.countries[country], ReasonCode.ROSTER):
                liar.answer(opened, country, chosen)
    assert liar.opens(opened) == ()
    assert liar.press(opened) == ()


def test_a_country_that_answered_for_the_roster_signs_no_smaller_set() -> None:
    liar = five()
    opened = liar.contributed()
    liar.answer(opened, "AT", ROSTER)
    with refused(liar.world.countries["AT"], ReasonCode.STALE):
        liar.agree(opened, "AT", WITHOUT_DK)
    assert liar.opens(opened) == ()
    for country in ("BE", "CZ"):
        liar.answer(opened, country, ROSTER)
    assert liar.press(opened) == (WITHOUT_EE,)


# ---- falsely claimed drop-outs


def test_a_late_contribution_is_not_opened() -> None:
    """The liar claims that CZ dropped out, and opens the others' sum; then CZ's words arrive."""
    liar = five()
    opened = liar.contributed(without=("CZ",))
    left = ("AT", "BE", "DK", "EE")
    liar.agree_all(opened, left)
    liar.answer_all(opened, left)
    liar.contribute(opened, "CZ")
    assert liar.opens(opened) == (("AT", "BE", "DK"),)
    liar.answer(opened, "CZ", ROSTER)
    assert liar.opens(opened) == (("AT", "BE", "DK"),)
    assert liar.press(opened) == (("AT", "BE", "DK"),)


def test_a_contribution_that_was_held_back_is_not_opened() -> None:
    """The late answer for the roster has shares, but t − c of the others gave none."""
    liar = four()
    opened = liar.contributed()
    left = ("AT", "BE", "CZ")
    liar.answer(opened, "DK", liar.honest)
    liar.agree_all(opened, left)
    liar.answer_all(opened, left)
    assert liar.opens(opened) == (left,)
    assert liar.press(opened) == (left,)


# ---- repeated requests


def test_a_country_signs_one_set_a_round() -> None:
    liar = five()
    opened = liar.contributed()
    liar.agree(opened, "AT", WITHOUT_DK)
    for chosen in (WITHOUT_DK, WITHOUT_EE, ROSTER):
        with refused(
            liar.world.countries["AT"], ReasonCode.STALE if chosen != ROSTER else ReasonCode.ROSTER
        ):
            liar.agree(opened, "AT", chosen)
    assert liar.press(opened) == ()


def test_a_country_answers_for_one_set_once() -> None:
    liar = five()
    opened = liar.contributed()
    liar.agree_all(opened, WITHOUT_DK)
    liar.answer_all(opened, WITHOUT_DK)
    for chosen in (WITHOUT_DK, WITHOUT_EE, ROSTER):
        with refused(liar.world.countries["AT"], ReasonCode.STALE):
            liar.answer(opened, "AT", chosen)
        with refused(liar.world.countries["AT"], ReasonCode.STALE):
            liar.agree(opened, "AT", chosen)
    assert liar.opens(opened) == (("AT", "BE", "CZ"),)
    assert liar.press(opened) == (("AT", "BE", "CZ"),)


def test_a_country_that_signed_a_smaller_set_does_not_answer_for_the_roster() -> None:
    liar = five()
    opened = liar.contributed()
    liar.agree_all(opened, WITHOUT_DK)
    for country in ("AT", "BE", "CZ"):
        with refused(liar.world.countries[country], ReasonCode.ROSTER, naming="AT, BE, CZ, EE"):
            liar.answer(opened, country, ROSTER)
    liar.answer(opened, "DK", ROSTER)
    assert liar.opens(opened) == ()
    assert liar.press(opened) == (("AT", "BE", "CZ"),)


def test_a_restart_forgets_neither_a_signature_nor_an_answer() -> None:
    liar = five()
    opened = liar.contributed()
    for country in ("AT", "BE", "CZ"):
        liar.world.restart(country)
        liar.agree(opened, country, WITHOUT_DK)
        liar.world.restart(country)
        with refused(liar.world.countries[country], ReasonCode.STALE):
            liar.agree(opened, country, WITHOUT_EE)
        with refused(liar.world.countries[country], ReasonCode.ROSTER):
            liar.answer(opened, country, ROSTER)
    for country in ("AT", "BE", "CZ"):
        liar.world.restart(country)
        liar.answer(opened, country, WITHOUT_DK)
        liar.world.restart(country)
    assert liar.opens(opened) == (("AT", "BE", "CZ"),)
    assert liar.press(opened) == (("AT", "BE", "CZ"),)


# ---- members that send garbage


def closed(world: ProtocolWorld, without: str) -> CoordinatorRound:
    """Return an agreed round of an honest coordinator, from which one country is missing."""
    opened = world.coordinator.begin_round(1, "train", MODEL)
    for country in world.terms.roster:
        if country != without:
            world.contribute(opened, country, ZEROS + 1)
    for country in opened.close():
        world.agree(opened, country)
    return opened


def with_answer(reply: bytes, country: str, change: Callable[[Answer], object]) -> bytes:
    signed = Reply.FromString(reply).answer
    answer = Answer.FromString(signed.body)
    change(answer)
    return serialise(Reply(answer=with_body(signed, serialise(answer), IDENTITIES[country])))


def test_a_wrong_mask_key_of_a_member_voids_the_round_and_the_next_one_opens() -> None:
    world = ProtocolWorld.ready(5, colluding=1, honest=2)
    opened = closed(world, "EE")
    for country in ("BE", "CZ", "DK"):
        world.answer(opened, country)
    reply = world.countries["AT"].answer(opened.answer_request("AT"))

    def garble(answer: Answer) -> None:
        answer.masks = os.urandom(32)

    opened.take_answer("AT", with_answer(reply, "AT", garble))
    assert opened.open() == VoidRound("the check coordinates of the sum are not zero", ())
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
    opened = closed(world, "EE")
    reply = world.countries["AT"].answer(opened.answer_request("AT"))

    def changed(answer: Answer) -> None:
        answer.masks = change(answer.masks)

    with pytest.raises(Refusal) as refusal:
        opened.take_answer("AT", with_answer(reply, "AT", changed))
    assert refusal.value.code is ReasonCode.ROSTER
    assert opened.answered == ()
    opened.take_answer("AT", reply)
    for country in ("BE", "CZ", "DK"):
        world.answer(opened, country)
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 4).all()


def test_a_member_whose_seed_does_not_come_out_voids_the_round_and_learns_nothing() -> None:
    """EE commits to a seed that its shares do not give: round void, and nothing else opens."""
    liar = five()
    opened = liar.begin()
    for country in ("AT", "BE", "CZ"):
        liar.contribute(opened, country)
    reply = Reply.FromString(liar.contribute(opened, "EE"))
    head = ContributionHead.FromString(reply.contribution.head.body)
    head.seed_commitment = os.urandom(32)
    lie = with_body(reply.contribution.head, serialise(head), IDENTITIES["EE"])
    liar.adversary_state.contributions(opened.terms.context)["EE"].contribution.head.CopyFrom(lie)
    liar.agree_all(opened, WITHOUT_DK)
    liar.answer_all(opened, WITHOUT_DK)
    assert liar.opens(opened) == (("AT", "BE", "CZ"),)
    assert liar.press(opened) == (("AT", "BE", "CZ"),)
