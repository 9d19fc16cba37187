import numpy as np
import pytest

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.messages import refusal_reply
from protocols.private_sum.opening import OpenedSum, VoidRound
from protocols.proto.round_pb2 import Answer, Parcel, Reply
from protocols.signed import serialise
from tests.support.federation import (
    COUNT,
    IDENTITIES,
    MODEL,
    TRAIN,
    ZEROS,
    World,
    spoken,
)


def test_what_is_here_is_told() -> None:
    world = World.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    assert (opened.contributed, opened.answered) == ((), ())
    for country in ("CZ", "AT", "BE"):
        world.contribute(opened, country)
    assert opened.contributed == ("AT", "BE", "CZ")
    world.answer(opened, "BE")
    assert opened.answered == ("BE",)


def test_a_contribution_sent_twice_counts_once() -> None:
    world = World.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    for country in world.terms.roster:
        reply = world.contribute(opened, country, ZEROS + 1)
        opened.take_contribution(country, reply)
    for country in world.terms.roster:
        reply = world.answer(opened, country)
        opened.take_answer(country, reply)
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 3).all()


def test_a_second_contribution_is_refused_and_not_added() -> None:
    world = World.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    stored = world.countries["AT"].to_bytes()
    world.contribute(opened, "AT", ZEROS + 1)
    view = world.countries["AT"]._view
    again = type(world.countries["AT"]).from_bytes(stored, view)
    second = again.contribute(opened.contribute_request("AT"), ZEROS + 9, ZEROS)
    with pytest.raises(ProtocolFault, match="AT gave two different replies"):
        opened.take_contribution("AT", second)
    for country in ("BE", "CZ"):
        world.contribute(opened, country)
    for country in world.terms.roster:
        world.answer(opened, country)
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 1).all()


def test_a_round_opens_again_to_the_same_sum() -> None:
    world = World.ready(3)
    opened = world.contributed()
    for country in world.terms.roster:
        world.answer(opened, country)
    once, again = opened.open(), opened.open()
    assert isinstance(once, OpenedSum)
    assert isinstance(again, OpenedSum)
    assert (once.values == again.values).all()


@pytest.mark.parametrize(("kind", "mechanism"), [("train", TRAIN), ("count", COUNT)])
def test_the_result_says_over_whom_and_how_noisy(kind: str, mechanism: object) -> None:
    world = World.ready(4)
    size = TRAIN.dimension if kind == "train" else COUNT.dimension
    values = {c: np.arange(size) * i for i, c in enumerate(world.terms.roster)}
    result = world.sum(1, kind, values)
    assert isinstance(result, OpenedSum)
    assert result.values.tolist() == (np.arange(size) * 6).tolist()
    assert result.values.dtype == np.int64
    assert result.countries == world.terms.roster
    assert result.variance == 4 * mechanism.noise_std**2  # type: ignore[attr-defined]


def test_any_threshold_of_answers_opens_and_fewer_do_not() -> None:
    world = World.ready(5)
    opened = world.contributed()
    assert opened.open() == VoidRound("too few countries answered", world.terms.roster)
    for country in world.terms.roster[-world.terms.threshold :]:
        assert isinstance(opened.open(), VoidRound)
        world.answer(opened, country)
    assert isinstance(opened.open(), OpenedSum)


def test_a_refusal_in_a_round_carries_the_code() -> None:
    world = World.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    for take in (opened.take_contribution, opened.take_answer):
        with pytest.raises(Refusal, match="AT refused") as refusal:
            take("AT", refusal_reply(ReasonCode.DECLINED))
        assert refusal.value.code is ReasonCode.DECLINED


@pytest.mark.parametrize(
    ("given", "unopenable"),
    [
        (["AT", "BE"], []),
        (["AT", "BE", "CZ", "CZ"], []),
        (["AT", "BE", "CZ"], ["CZ"]),
        (["AT", "BE", "DK"], []),
        ([], ["AT", "BE"]),
    ],
)
def test_an_answer_is_about_each_country_once(given: list[str], unopenable: list[str]) -> None:
    world = World.ready(3)
    opened = world.contributed()
    signed = Reply.FromString(world.countries["AT"].answer(opened.answer_request("AT"))).answer
    answer = Answer(
        round=1,
        shares=[Parcel(country=c, content=bytes(32)) for c in given],
        unopenable=unopenable,
    )
    lie = spoken(signed, serialise(answer), IDENTITIES["AT"])
    with pytest.raises(Refusal) as refusal:
        opened.take_answer("AT", serialise(Reply(answer=lie)))
    assert refusal.value.code is ReasonCode.MALFORMED
    assert opened.answered == ()


def test_holders_that_cannot_open_anything_leave_the_round_void_and_its_owners_named() -> None:
    world = World.ready(3)
    opened = world.contributed()
    for country in world.terms.roster:
        signed = Reply.FromString(
            world.countries[country].answer(opened.answer_request(country))
        ).answer
        answer = Answer(round=1, unopenable=world.terms.roster)
        lie = spoken(signed, serialise(answer), IDENTITIES[country])
        opened.take_answer(country, serialise(Reply(answer=lie)))
    result = opened.open()
    assert isinstance(result, VoidRound)
    assert result.missing == world.terms.roster


def test_no_opening_while_a_contribution_is_missing() -> None:
    world = World.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    world.contribute(opened, "BE")
    assert opened.open() == VoidRound("too few countries contributed", ("AT", "CZ"))
    assert not opened.openable
    with pytest.raises(ProtocolFault, match="0 have agreed, 3 must"):
        opened.answer_request("BE")


def test_a_reply_to_an_attempt_before_does_not_close_the_round() -> None:
    world = World.ready(4, colluding=0, honest=2)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    sent = {country: world.contribute(opened, country) for country in ("AT", "BE", "CZ")}
    agreed = {country: world.agree(opened, country) for country in opened.close()}
    answered = world.answer(opened, "AT")
    again = world.twin().begin_round(1, "train", MODEL, asked=opened.asked[:3])
    with pytest.raises(ProtocolFault, match="not asked"):
        again.take_assent("AT", agreed["AT"])
    with pytest.raises(ProtocolFault, match="not asked"):
        again.take_answer("AT", answered)
    for country, reply in sent.items():
        again.take_contribution(country, reply)
    assert again.close() == ("AT", "BE", "CZ")
    again.take_assent("AT", agreed["AT"])
    again.take_answer("AT", answered)
    assert (again.agreed, again.answered) == (("AT",), ("AT",))
