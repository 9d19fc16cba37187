import pytest

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator import CoordinatorRun
from protocols.private_sum.messages import refusal_reply
from protocols.proto.round_pb2 import Reply
from protocols.signed import serialise
from tests.support.federation import (
    COORDINATOR_KEY,
    IDENTITIES,
    MODEL,
    World,
    coordinator_of,
    terms_of,
    versions_of,
)

STEPS = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}


def test_keys_of_another_roster_make_no_run() -> None:
    with pytest.raises(Refusal) as refusal:
        CoordinatorRun(
            terms_of(3),
            peers={"AT": IDENTITIES["AT"].public},
            sign=COORDINATOR_KEY.sign,
            versions=versions_of(("AT",)),
        )
    assert refusal.value.code is ReasonCode.ROSTER


def test_the_key_may_live_elsewhere() -> None:
    signed = []

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return COORDINATOR_KEY.sign(message)

    coordinator = coordinator_of(terms_of(3))
    elsewhere = CoordinatorRun(
        terms_of(3), peers=coordinator._desk.peers, sign=sign, versions=coordinator._desk.versions
    )
    assert elsewhere.bundle_request("AT") == coordinator.bundle_request("AT")
    assert [len(message) for message in signed] == [32]


def test_killed_and_fed_the_same_replies_it_sends_the_same_bytes() -> None:
    world, again = World.of(3), coordinator_of(terms_of(3))
    sent: list[bytes] = []
    for step, taken in STEPS.items():
        for country in world.terms.roster:
            request = getattr(world.coordinator, f"{step}_request")(country)
            reply = getattr(world.countries[country], step)(request)
            for coordinator in (world.coordinator, again):
                getattr(coordinator, f"take_{taken}")(country, reply)
            sent.append(reply)
        assert all(
            getattr(again, f"{step}_request")(c) == getattr(world.coordinator, f"{step}_request")(c)
            for c in world.terms.roster
        )
    one, other = (c.begin_round(3, "train", MODEL) for c in (world.coordinator, again))
    assert one.contribute_request("BE") == other.contribute_request("BE")


@pytest.mark.parametrize("step", STEPS)
def test_a_repeated_reply_changes_nothing_and_another_is_refused(step: str) -> None:
    world = World.of(3)
    for earlier in STEPS:
        if earlier == step:
            break
        world.set_up(earlier)
    request = getattr(world.coordinator, f"{step}_request")("AT")
    stored = world.countries["AT"].to_bytes()
    take = getattr(world.coordinator, f"take_{STEPS[step]}")
    reply = getattr(world.countries["AT"], step)(request)
    take("AT", reply)
    take("AT", reply)
    if step == "confirm":
        return  # it is determined: there is no second one
    world.countries["AT"] = type(world.countries["AT"]).from_bytes(
        stored, world.countries["AT"]._view
    )
    other = getattr(world.countries["AT"], step)(request)
    with pytest.raises(ProtocolFault, match="AT gave two different replies"):
        take("AT", other)


def test_a_refusal_carries_the_countrys_code() -> None:
    coordinator = coordinator_of(terms_of(3))
    with pytest.raises(Refusal, match="AT refused") as refusal:
        coordinator.take_bundle("AT", refusal_reply(ReasonCode.NO_PERMIT))
    assert refusal.value.code is ReasonCode.NO_PERMIT


def test_countries_that_are_not_of_the_run_are_not_spoken_with() -> None:
    world = World.of(3)
    reply = world.countries["AT"].bundle(world.coordinator.bundle_request("AT"))
    with pytest.raises(ProtocolFault, match="DK"):
        world.coordinator.bundle_request("DK")
    with pytest.raises(ProtocolFault, match="DK"):
        world.coordinator.take_bundle("DK", reply)
    world.exchange("bundle", "BE")
    world.exchange("bundle", "CZ")
    world.coordinator.take_bundle("AT", reply)
    world.set_up("encapsulate")
    with pytest.raises(ProtocolFault, match="DK"):
        world.coordinator.confirm_request("DK")


def test_a_ciphertext_that_was_not_signed_is_not_passed_on() -> None:
    world = World.of(3)
    world.set_up("bundle")
    request = world.coordinator.encapsulate_request("AT")
    said = Reply.FromString(world.countries["AT"].encapsulate(request))
    said.encapsulation.ciphertexts[0].content = bytes(1088)
    with pytest.raises(Refusal, match="AT"):
        world.coordinator.take_encapsulation("AT", serialise(said))


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_number_is_used_once(number: int) -> None:
    world = World.ready(3)
    world.coordinator.begin_round(2, "train", MODEL)
    with pytest.raises(ProtocolFault, match="used before"):
        world.coordinator.begin_round(number, "train", MODEL)


def test_a_round_of_an_unknown_kind_does_not_begin() -> None:
    world = World.ready(3)
    with pytest.raises(Refusal) as refusal:
        world.coordinator.begin_round(1, "evaluate", MODEL)
    assert refusal.value.code is ReasonCode.TASK_UNKNOWN
    world.coordinator.begin_round(1, "train", MODEL)


def test_the_terms_are_the_coordinators() -> None:
    assert coordinator_of(terms_of(3)).terms == terms_of(3)
