import numpy as np
import pytest

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.messages import refusal_reply
from protocols.proto.round_pb2 import Answer, Reply
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    COUNT,
    IDENTITIES,
    MODEL,
    TRAIN,
    ZEROS,
    ProtocolWorld,
    with_body,
)


def test_the_round_lists_the_contributions_that_arrived() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    assert (opened.contributed, opened.answered) == ((), ())
    for country in ("CZ", "AT", "BE"):
        world.contribute(opened, country)
    assert opened.contributed == ("AT", "BE", "CZ")
    world.answer(opened, "BE")
    assert opened.answered == ("BE",)


def test_a_contribution_sent_twice_counts_once() -> None:
    world = ProtocolWorld.ready(3)
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
    world = ProtocolWorld.ready(3)
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
    world = ProtocolWorld.ready(3)
    opened = world.contributed()
    for country in world.terms.roster:
        world.answer(opened, country)
    once, again = opened.open(), opened.open()
    assert isinstance(once, OpenedSum)
    assert isinstance(again, OpenedSum)
    assert (once.values == again.values).all()


@pytest.mark.parametrize(("kind", "mechanism"), [("train", TRAIN), ("count", COUNT)])
def test_the_result_states_its_countries_and_its_noise(kind: str, mechanism: object) -> None:
    world = ProtocolWorld.ready(4)
    size = TRAIN.dimension if kind == "train" else COUNT.dimension
    values = {c: np.arange(size) * i for i, c in enumerate(world.terms.roster)}
    result = world.sum(1, kind, values)
    assert isinstance(result, OpenedSum)
    assert result.values.tolist() == (np.arange(size) * 6).tolist()
    assert result.values.dtype == np.int64
    assert result.countries == world.terms.roster
    assert result.variance == 4 * mechanism.noise_std**2  # type: ignore[attr-defined]


def test_any_threshold_of_answers_opens_and_fewer_do_not() -> None:
    world = ProtocolWorld.ready(5)
    opened = world.contributed()
    assert opened.open() == VoidRound("too few countries answered", world.terms.roster)
    for country in world.terms.roster[-world.terms.threshold :]:
        assert isinstance(opened.open(), VoidRound)
        world.answer(opened, country)
    assert isinstance(opened.open(), OpenedSum)


def test_a_refusal_in_a_round_has_its_code() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    for take in (opened.take_contribution, opened.take_answer):
        with pytest.raises(Refusal, match="AT refused") as refusal:
            take("AT", refusal_reply(ReasonCode.DECLINED))
        assert refusal.value.code is ReasonCode.DECLINED


def altered_answer(
    world: ProtocolWorld, opened: CoordinatorRound, country: str, **changes: object
) -> bytes:
    """Return a country's answer with other fields, signed by the country."""
    signed = Reply.FromString(world.countries[country].answer(opened.answer_request(country)))
    answer = Answer.FromString(signed.answer.body)
    for field, value in changes.items():
        answer.ClearField(field)
        answer.MergeFrom(Answer(**{field: value}))  # type: ignore[arg-type]
    lie = with_body(signed.answer, serialise(answer), IDENTITIES[country])
    return serialise(Reply(answer=lie))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"shares": b""}, ReasonCode.ROSTER),
        ({"shares": bytes(2 * 32)}, ReasonCode.ROSTER),
        ({"shares": bytes(4 * 32)}, ReasonCode.ROSTER),
        ({"shares": bytes(3 * 32 - 1)}, ReasonCode.ROSTER),
        ({"shares": bytes(3 * 32 + 1)}, ReasonCode.ROSTER),
        ({"masks": bytes(32)}, ReasonCode.ROSTER),
        ({"unopenable": ["CZ", "BE"]}, ReasonCode.MALFORMED),
        ({"unopenable": ["BE", "BE"]}, ReasonCode.MALFORMED),
        ({"unopenable": ["BE", "DK"]}, ReasonCode.MALFORMED),
        ({"unopenable": [""]}, ReasonCode.MALFORMED),
    ],
    ids=lambda value: "-".join(map(repr, value)) if isinstance(value, dict) else "",
)
def test_an_answer_has_one_place_for_each_country(
    changes: dict[str, object], code: ReasonCode
) -> None:
    world = ProtocolWorld.ready(3)
    opened = world.contributed()
    with pytest.raises(Refusal) as refusal:
        opened.take_answer("AT", altered_answer(world, opened, "AT", **changes))
    assert refusal.value.code is code
    assert opened.answered == ()


def test_a_country_outside_the_set_cannot_be_unopenable() -> None:
    """EE is in the roster and not in U."""
    world = ProtocolWorld.ready(5, colluding=1, honest=2)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    for country in ("AT", "BE", "CZ", "DK"):
        world.contribute(opened, country)
    for country in opened.close():
        world.agree(opened, country)
    with pytest.raises(Refusal) as refusal:
        opened.take_answer("AT", altered_answer(world, opened, "AT", unopenable=["EE"]))
    assert refusal.value.code is ReasonCode.MALFORMED


def test_the_placeholder_of_an_unopened_share_is_not_used_as_a_share() -> None:
    """It is ignored, right or wrong: its sender said that it has no share."""
    world = ProtocolWorld.ready(4)
    opened = world.contributed()
    opened.take_answer("AT", altered_answer(world, opened, "AT", unopenable=["BE"]))
    assert set(opened._answers._shares["AT"]) == {"AT", "CZ", "DK"}
    for country in ("BE", "CZ", "DK"):
        world.answer(opened, country)
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("AT", "BE"),)


def test_holders_that_cannot_open_shares_void_the_round_and_the_owners_are_named() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.contributed()
    for country in world.terms.roster:
        lie = altered_answer(world, opened, country, unopenable=world.terms.roster)
        opened.take_answer(country, lie)
    result = opened.open()
    assert isinstance(result, VoidRound)
    assert result.missing == world.terms.roster


def test_no_opening_while_a_contribution_is_missing() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    world.contribute(opened, "BE")
    assert opened.open() == VoidRound("too few countries contributed", ("AT", "CZ"))
    assert not opened.openable
    with pytest.raises(ProtocolFault, match="0 have agreed, 3 must"):
        opened.answer_request("BE")


def test_a_reply_to_an_earlier_attempt_does_not_close_the_round() -> None:
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    sent = {country: world.contribute(opened, country) for country in ("AT", "BE", "CZ")}
    agreed = {country: world.agree(opened, country) for country in opened.close()}
    answered = world.answer(opened, "AT")
    again = world.twin().begin_round(1, "train", MODEL, asked=opened.asked[:3])
    with pytest.raises(ProtocolFault, match="before it was asked"):
        again.take_assent("AT", agreed["AT"])
    with pytest.raises(ProtocolFault, match="before it was asked"):
        again.take_answer("AT", answered)
    for country, reply in sent.items():
        again.take_contribution(country, reply)
    assert again.close() == ("AT", "BE", "CZ")
    again.take_assent("AT", agreed["AT"])
    again.take_answer("AT", answered)
    assert (again.agreed, again.answered) == (("AT",), ("AT",))
