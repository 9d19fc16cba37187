from collections.abc import Callable
from dataclasses import replace

import pytest

from keys.hybrid import MLKEM_CIPHERTEXT_BYTES
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.messages import refusal_reply
from protocols.proto.round_pb2 import Confirmations, Reply
from protocols.proto.round_pb2 import Request as Envelope
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    COORDINATOR_KEY,
    IDENTITIES,
    MODEL,
    ProtocolWorld,
    coordinator_of,
    terms_of,
    versions_of,
    with_body,
)

STEPS = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}


def test_keys_of_another_roster_are_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        CoordinatorRun(
            terms_of(3),
            peers={"AT": IDENTITIES["AT"].public},
            sign=COORDINATOR_KEY.sign,
            versions=versions_of(("AT",)),
        )
    assert refusal.value.code is ReasonCode.ROSTER


def test_the_signing_key_may_be_outside_the_process() -> None:
    signed = []

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return COORDINATOR_KEY.sign(message)

    coordinator = coordinator_of(terms_of(3))
    elsewhere = CoordinatorRun(
        terms_of(3), peers=coordinator._view.peers, sign=sign, versions=coordinator._view.versions
    )
    assert elsewhere.bundle_request("AT") == coordinator.bundle_request("AT")
    assert [len(message) for message in signed] == [32]


def test_after_a_crash_the_same_replies_give_the_same_requests() -> None:
    world, again = ProtocolWorld.of(3), coordinator_of(terms_of(3))
    sent: list[bytes] = []
    for step, reply_field in STEPS.items():
        for country in world.terms.roster:
            request = getattr(world.coordinator, f"{step}_request")(country)
            reply = getattr(world.countries[country], step)(request)
            for coordinator in (world.coordinator, again):
                getattr(coordinator, f"take_{reply_field}")(country, reply)
            sent.append(reply)
        assert all(
            getattr(again, f"{step}_request")(c) == getattr(world.coordinator, f"{step}_request")(c)
            for c in world.terms.roster
        )
    one, other = (c.begin_round(3, "train", MODEL) for c in (world.coordinator, again))
    assert one.contribute_request("BE") == other.contribute_request("BE")


@pytest.mark.parametrize("step", STEPS)
def test_a_repeated_reply_changes_nothing_and_another_is_refused(step: str) -> None:
    world = ProtocolWorld.of(3)
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
        return  # this request is deterministic: there is no second one
    world.countries["AT"] = type(world.countries["AT"]).from_bytes(
        stored, world.countries["AT"]._view
    )
    other = getattr(world.countries["AT"], step)(request)
    with pytest.raises(ProtocolFault, match="AT gave two different replies"):
        take("AT", other)


def test_a_refusal_has_the_country_s_code() -> None:
    coordinator = coordinator_of(terms_of(3))
    with pytest.raises(Refusal, match="AT refused") as refusal:
        coordinator.take_bundle("AT", refusal_reply(ReasonCode.NO_PERMIT))
    assert refusal.value.code is ReasonCode.NO_PERMIT


def test_countries_outside_the_run_get_no_requests() -> None:
    world = ProtocolWorld.of(3)
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
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    request = world.coordinator.encapsulate_request("AT")
    reply_message = Reply.FromString(world.countries["AT"].encapsulate(request))
    ciphertexts = reply_message.encapsulation.ciphertexts
    first, second = ciphertexts[:MLKEM_CIPHERTEXT_BYTES], ciphertexts[MLKEM_CIPHERTEXT_BYTES:]
    for wrong in (bytes(MLKEM_CIPHERTEXT_BYTES) + second, second + first):
        reply_message.encapsulation.ciphertexts = wrong
        with pytest.raises(Refusal, match="AT"):
            world.coordinator.take_encapsulation("AT", serialise(reply_message))
    for wrong in (b"", first, ciphertexts + first, ciphertexts + b"0", ciphertexts[:-1]):
        reply_message.encapsulation.ciphertexts = wrong
        with pytest.raises(Refusal) as refusal:
            world.coordinator.take_encapsulation("AT", serialise(reply_message))
        assert refusal.value.code is ReasonCode.ROSTER
    with pytest.raises(ProtocolFault, match="AT"):
        world.coordinator.confirm_request("BE")


@pytest.mark.parametrize("length", [0, 32, 63, 65, 96])
def test_there_is_one_mac_for_each_other_country(length: int) -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    world.set_up("encapsulate")
    reply = world.countries["AT"].confirm(world.coordinator.confirm_request("AT"))
    signed = Reply.FromString(reply).confirmation
    forged_message = with_body(
        signed, serialise(Confirmations(macs=bytes(length))), IDENTITIES["AT"]
    )
    with pytest.raises(Refusal) as refusal:
        world.coordinator.take_confirmation("AT", serialise(Reply(confirmation=forged_message)))
    assert refusal.value.code is ReasonCode.ROSTER
    world.coordinator.take_confirmation("AT", reply)


class Signer:
    """Signs as an ML-DSA key does, with another signature each time; counts the signatures."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: bytes) -> bytes:
        self.count += 1
        return COORDINATOR_KEY.sign(message) + bytes([self.count])


def test_every_country_is_asked_the_same_signed_words_and_they_are_signed_once() -> None:
    """A randomised signature differs each time, so separate signatures would show."""
    world, sign = ProtocolWorld.ready(4, colluding=0, honest=2), Signer()
    asks = replaying(world, sign)
    round_ = asks.begin_round(1, "train", MODEL)
    frames = {step: getattr(asks, f"{step}_request") for step in STEPS}
    frames["contribute"] = round_.contribute_request
    for number, (step, ask) in enumerate(frames.items(), start=1):
        requests = [Envelope.FromString(ask(country)) for country in world.terms.roster * 2]
        assert {request.signed.SerializeToString() for request in requests} == {
            requests[0].signed.SerializeToString()
        }, step
        assert requests[0].signed.receiver == "roster"
        assert sign.count == number, step
    assert round_.contribute_request("AT") != round_.contribute_request("BE"), "the MACs differ"


def test_the_words_of_a_smaller_set_are_signed_once_a_phase() -> None:
    world, sign = ProtocolWorld.ready(4, colluding=0, honest=2), Signer()
    world.coordinator = replaying(world, COORDINATOR_KEY.sign)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    chosen = world.terms.roster[:3]
    for country in chosen:
        world.contribute(round_, country)
    round_._view = replace(round_._view, sign=sign)
    round_.close()
    agree = [Envelope.FromString(round_.agree_request(country)) for country in chosen * 2]
    assert (len({request.SerializeToString() for request in agree}), sign.count) == (1, 1)
    round_._view = replace(round_._view, sign=COORDINATOR_KEY.sign)
    del round_._request_to_agree
    for country in chosen:
        world.agree(round_, country)
    round_._view = replace(round_._view, sign=sign)
    answer = [Envelope.FromString(round_.answer_request(country)) for country in chosen * 2]
    assert len({request.signed.SerializeToString() for request in answer}) == 1
    assert (len({request.parts for request in answer}), sign.count) == (3, 2)


def replaying(world: ProtocolWorld, sign: Callable[[bytes], bytes]) -> CoordinatorRun:
    """Return a coordinator with another signer, after all replies of a world's set-up."""
    known, terms = world.coordinator, world.terms
    coordinator = CoordinatorRun(
        terms, peers=known._view.peers, sign=sign, versions=known._view.versions
    )
    for name in ("_bundles", "_encapsulations", "_ciphertexts", "_macs"):
        getattr(coordinator, name).update(getattr(known, name))
    return coordinator


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_number_is_used_once(number: int) -> None:
    world = ProtocolWorld.ready(3)
    world.coordinator.begin_round(2, "train", MODEL)
    with pytest.raises(ProtocolFault, match="used before"):
        world.coordinator.begin_round(number, "train", MODEL)


def test_a_round_of_an_unknown_kind_does_not_begin() -> None:
    world = ProtocolWorld.ready(3)
    with pytest.raises(Refusal) as refusal:
        world.coordinator.begin_round(1, "evaluate", MODEL)
    assert refusal.value.code is ReasonCode.TASK_UNKNOWN
    world.coordinator.begin_round(1, "train", MODEL)


def test_a_run_has_the_terms_of_its_coordinator() -> None:
    assert coordinator_of(terms_of(3)).terms == terms_of(3)
