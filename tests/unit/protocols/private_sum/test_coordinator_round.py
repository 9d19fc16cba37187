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
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    assert (round_.contributed, round_.answered) == ((), ())
    for country in ("CZ", "AT", "BE"):
        world.contribute(round_, country)
    assert round_.contributed == ("AT", "BE", "CZ")
    world.answer(round_, "BE")
    assert round_.answered == ("BE",)


def test_a_contribution_sent_twice_counts_once() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country in world.terms.roster:
        reply = world.contribute(round_, country, ZEROS + 1)
        round_.take_contribution(country, reply)
    for country in world.terms.roster:
        reply = world.answer(round_, country)
        round_.take_answer(country, reply)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 3).all()


def test_a_second_contribution_is_refused_and_not_added() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    stored = world.countries["AT"].to_bytes()
    world.contribute(round_, "AT", ZEROS + 1)
    view = world.countries["AT"]._view
    again = type(world.countries["AT"]).from_bytes(stored, view)
    second = again.contribute(round_.contribute_request("AT"), ZEROS + 9, ZEROS)
    with pytest.raises(ProtocolFault, match="AT gave two different replies"):
        round_.take_contribution("AT", second)
    for country in ("BE", "CZ"):
        world.contribute(round_, country)
    for country in world.terms.roster:
        world.answer(round_, country)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 1).all()


def test_a_round_opens_again_to_the_same_sum() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()
    for country in world.terms.roster:
        world.answer(round_, country)
    once, again = round_.open(), round_.open()
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
    round_ = world.contributed()
    assert round_.open() == VoidRound("too few countries answered", world.terms.roster)
    for country in world.terms.roster[-world.terms.threshold :]:
        assert isinstance(round_.open(), VoidRound)
        world.answer(round_, country)
    assert isinstance(round_.open(), OpenedSum)


def test_a_refusal_in_a_round_has_its_code() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for take in (round_.take_contribution, round_.take_answer):
        with pytest.raises(Refusal, match="AT refused") as refusal:
            take("AT", refusal_reply(ReasonCode.DECLINED))
        assert refusal.value.code is ReasonCode.DECLINED


def altered_answer(
    world: ProtocolWorld, round_: CoordinatorRound, country: str, **changes: object
) -> bytes:
    """Return a country's answer with other fields, signed by the country."""
    signed = Reply.FromString(world.countries[country].answer(round_.answer_request(country)))
    answer = Answer.FromString(signed.answer.body)
    for field, value in changes.items():
        answer.ClearField(field)
        answer.MergeFrom(Answer(**{field: value}))  # type: ignore[arg-type]
    forged_message = with_body(signed.answer, serialise(answer), IDENTITIES[country])
    return serialise(Reply(answer=forged_message))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"shares": b""}, ReasonCode.ROSTER),
        ({"shares": bytes(2 * 32)}, ReasonCode.ROSTER),
        ({"shares": bytes(4 * 32)}, ReasonCode.ROSTER),
        ({"shares": bytes(3 * 32 - 1)}, ReasonCode.ROSTER),
        ({"shares": bytes(3 * 32 + 1)}, ReasonCode.ROSTER),
        ({"masks": bytes(32)}, ReasonCode.ROSTER),
        ({"keys": bytes(32)}, ReasonCode.ROSTER),
        ({"unopenable": ["BE"]}, ReasonCode.ROSTER),
        ({"unopenable": ["BE"], "keys": bytes(31)}, ReasonCode.ROSTER),
        ({"unopenable": ["BE"], "keys": bytes(64)}, ReasonCode.ROSTER),
        ({"unopenable": ["CZ", "BE"]}, ReasonCode.MALFORMED),
        ({"unopenable": ["BE", "BE"]}, ReasonCode.MALFORMED),
        ({"unopenable": ["BE", "DK"]}, ReasonCode.MALFORMED),
        ({"unopenable": [""]}, ReasonCode.MALFORMED),
    ],
    ids=lambda value: "-".join(map(repr, value)) if isinstance(value, dict) else "",
)
def test_malformed_shares_and_unopenable_lists_in_an_answer_are_refused(
    changes: dict[str, object], code: ReasonCode
) -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()
    with pytest.raises(Refusal) as refusal:
        round_.take_answer("AT", altered_answer(world, round_, "AT", **changes))
    assert refusal.value.code is code
    assert round_.answered == ()


def test_a_country_outside_the_set_cannot_be_unopenable() -> None:
    """EE is in the roster and not in U."""
    world = ProtocolWorld.ready(5, colluding=1, honest=2)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country in ("AT", "BE", "CZ", "DK"):
        world.contribute(round_, country)
    for country in round_.close():
        world.agree(round_, country)
    with pytest.raises(Refusal) as refusal:
        round_.take_answer("AT", altered_answer(world, round_, "AT", unopenable=["EE"]))
    assert refusal.value.code is ReasonCode.MALFORMED


def test_the_placeholder_of_an_unopened_share_is_not_used_as_a_share() -> None:
    """It is ignored, right or wrong: its sender said that it has no share."""
    world = ProtocolWorld.ready(4)
    round_ = world.contributed()
    round_.take_answer("AT", altered_answer(world, round_, "AT", unopenable=["BE"], keys=bytes(32)))
    assert set(round_._answers._shares["AT"]) == {"AT", "CZ", "DK"}
    for country in ("BE", "CZ", "DK"):
        world.answer(round_, country)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == (("AT", "BE"),)


def test_holders_that_report_every_share_void_the_round_and_are_named() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed()
    for country in world.terms.roster:
        forged_message = altered_answer(
            world, round_, country, unopenable=world.terms.roster, keys=bytes(3 * 32)
        )
        round_.take_answer(country, forged_message)
    result = round_.open()
    assert isinstance(result, VoidRound)
    assert result.missing == world.terms.roster


def test_no_opening_while_a_contribution_is_missing() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    world.contribute(round_, "BE")
    assert round_.open() == VoidRound(
        "too few countries contributed: 1 of the 3 needed", ("AT", "CZ")
    )
    assert not round_.openable
    with pytest.raises(ProtocolFault, match="0 have agreed, 3 must"):
        round_.answer_request("BE")


def test_a_reply_to_an_earlier_attempt_does_not_close_the_round() -> None:
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    sent = {country: world.contribute(round_, country) for country in ("AT", "BE", "CZ")}
    agreed = {country: world.agree(round_, country) for country in round_.close()}
    answered = world.answer(round_, "AT")
    again = world.twin().begin_round(1, "train", MODEL, asked=round_.asked[:3])
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
