"""A coordinator swaps keys, encapsulates in another country's name, or is not the coordinator.

Every test uses the real state machines of both sides; the attacker has the coordinator's key.
"""

from collections.abc import Callable

import pytest

from keys.hybrid import MLKEM_CIPHERTEXT_BYTES, HybridKey, encapsulate
from keys.identity import SigningKey
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum import setup
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.messages import MAC_BYTES
from protocols.proto.round_pb2 import (
    PHASE_CONFIRM,
    PHASE_ENCAPSULATE,
    Bundle,
    EncapsulationReply,
    Encapsulations,
    Reply,
    RequestBody,
)
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ZEROS,
    ProtocolWorld,
    altered_request,
    parts_of,
    refused,
    view_of,
    with_body,
)


def swap_bundle(body: RequestBody, country: str, key: SigningKey) -> HybridKey:
    """Put other keys into a country's bundle and sign them with `key`; return the private keys."""
    new_keys = HybridKey.generate()
    message = next(m for m in body.encapsulate.bundles if m.sender == country)
    bundle = Bundle.FromString(message.body)
    bundle.x25519, bundle.mlkem = new_keys.public.x25519, new_keys.public.mlkem
    message.CopyFrom(with_body(message, serialise(bundle), key))
    return new_keys


@pytest.mark.parametrize("victim", ["BE", "CZ"])
def test_keys_swapped_by_the_coordinator_stop_the_set_up(victim: str) -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    forged = SigningKey.generate()
    request = altered_request(
        world.coordinator.encapsulate_request("AT"),
        lambda body: swap_bundle(body, victim, forged),
    )
    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming=victim):
        world.countries["AT"].encapsulate(request)


def test_keys_changed_without_a_new_signature_stop_the_set_up() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")

    def replace_key(body: RequestBody) -> None:
        message = body.encapsulate.bundles[1]
        bundle = Bundle.FromString(message.body)
        bundle.x25519 = HybridKey.generate().public.x25519
        message.body = serialise(bundle)

    request = altered_request(world.coordinator.encapsulate_request("AT"), replace_key)
    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        world.countries["AT"].encapsulate(request)


def test_a_replaced_own_bundle_stops_the_set_up_even_if_signed_by_a_stolen_key() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    request = altered_request(
        world.coordinator.encapsulate_request("BE"),
        lambda body: swap_bundle(body, "BE", IDENTITIES["BE"]),
    )
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="this country's name"):
        world.countries["BE"].encapsulate(request)


def test_a_country_with_two_bundles_cannot_confirm_with_a_country_that_it_deceived() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    request = altered_request(
        world.coordinator.encapsulate_request("AT"),
        lambda body: swap_bundle(body, "CZ", IDENTITIES["CZ"]),
    )
    reply = world.countries["AT"].encapsulate(request)
    with pytest.raises(Refusal, match="other key bundles"):
        world.coordinator.take_encapsulation("AT", reply)
    world.exchange("encapsulate", "BE")
    world.exchange("encapsulate", "CZ")
    lists = [
        Reply.FromString(reply).encapsulation.signed,
        *world.coordinator._encapsulations.values(),
    ]

    def deliver(body: RequestBody) -> None:
        body.confirm.encapsulations.extend(lists)

    parts = [Reply.FromString(reply).encapsulation.ciphertexts[:MLKEM_CIPHERTEXT_BYTES]]
    request = world.coordinator.bundle_request("BE")
    forged_confirm_request = altered_request(request, deliver, parts=parts, phase=PHASE_CONFIRM)
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["BE"].confirm(forged_confirm_request)


def test_a_second_bundle_is_neither_created_nor_accepted() -> None:
    world = ProtocolWorld.of(3)
    request = world.coordinator.bundle_request("AT")
    world.exchange("bundle", "AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].bundle(request)
    second = CountryRun.start(view_of("AT", world.terms)).bundle(request)
    with pytest.raises(ProtocolFault, match="AT gave two different replies"):
        world.coordinator.take_bundle("AT", second)


def encapsulated_for(world: ProtocolWorld, sender: str, receiver: str) -> tuple[bytes, bytes]:
    """Return a body signed by `sender`, and the fresh ciphertext for `receiver` in it."""
    honest = world.coordinator._encapsulations[sender]
    message = Encapsulations.FromString(honest.body)
    bundle = Bundle.FromString(world.coordinator._bundles[receiver].body)
    ciphertext, _ = encapsulate(setup.public_keys(bundle, receiver))
    for entry in message.encapsulations:
        if entry.receiver == receiver:
            entry.ciphertext_digest = setup.ciphertext_digest(
                world.terms, sender, receiver, ciphertext
            )
    return serialise(message), ciphertext


def encapsulated_world() -> ProtocolWorld:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    world.set_up("encapsulate")
    return world


def with_ciphertext(
    world: ProtocolWorld,
    ciphertext: bytes,
    change: Callable[[RequestBody], object] = lambda body: None,
) -> bytes:
    """Return CZ's confirm request with another ciphertext of AT, which is first in the roster."""
    honest = world.coordinator.confirm_request("CZ")
    parts = [ciphertext, *parts_of(honest, MLKEM_CIPHERTEXT_BYTES)[1:]]
    return altered_request(honest, change, parts=parts)


def test_a_ciphertext_in_the_name_of_another_country_is_refused() -> None:
    world = encapsulated_world()
    body, ciphertext = encapsulated_for(world, "AT", "CZ")

    def forge(content: RequestBody) -> None:
        message = content.confirm.encapsulations[0]
        message.CopyFrom(with_body(message, body, SigningKey.generate()))

    request = with_ciphertext(world, ciphertext, forge)
    with refused(world.countries["CZ"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["CZ"].confirm(request)


def test_a_ciphertext_other_than_the_signed_one_is_refused() -> None:
    world = encapsulated_world()
    _, ciphertext = encapsulated_for(world, "AT", "CZ")

    request = with_ciphertext(world, ciphertext)
    with refused(world.countries["CZ"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["CZ"].confirm(request)


def test_a_country_that_signs_two_lists_cannot_confirm_with_a_country_that_it_deceived() -> None:
    """Both lists verify, so only the transcripts differ: no MAC of the deceived pair fits."""
    world = encapsulated_world()
    body, ciphertext = encapsulated_for(world, "AT", "CZ")

    def replace_list(content: RequestBody) -> None:
        message = content.confirm.encapsulations[0]
        message.CopyFrom(with_body(message, body, IDENTITIES["AT"]))

    world.exchange("confirm", "BE")
    request = with_ciphertext(world, ciphertext, replace_list)
    world.coordinator.take_confirmation("CZ", world.countries["CZ"].confirm(request))
    world.exchange("confirm", "AT")
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="CZ"):
        world.countries["BE"].admit(round_.contribute_request("BE"))


def test_nobody_contributes_before_every_mac_verifies() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    honest = round_.contribute_request("AT")

    macs = parts_of(honest, MAC_BYTES)
    flipped = bytes([macs[1][0] ^ 1]) + macs[1][1:]
    for parts, named in (
        ([macs[0], flipped], "CZ"),
        (macs[::-1], "BE"),
        (parts_of(round_.contribute_request("BE"), MAC_BYTES), "BE"),
    ):
        with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming=named):
            world.countries["AT"].contribute(altered_request(honest, parts=parts), ZEROS, ZEROS)
    for parts in (macs[:1], [], [*macs, macs[0]], [*macs, b"0"]):
        with refused(world.countries["AT"], ReasonCode.ROSTER):
            world.countries["AT"].contribute(altered_request(honest, parts=parts), ZEROS, ZEROS)
    world.countries["AT"].contribute(honest, ZEROS, ZEROS)


def test_nobody_contributes_before_set_up_is_complete() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    early = CountryRun.start(view_of("AT", world.terms))
    with refused(early, ReasonCode.STALE):
        early.contribute(round_.contribute_request("AT"), ZEROS, ZEROS)


@pytest.mark.parametrize("phase", ["bundle", "contribute", "answer"])
def test_a_request_by_another_key_is_refused(phase: str) -> None:
    stranger = SigningKey.generate()
    if phase == "bundle":
        world = ProtocolWorld.of(3)
        request = altered_request(world.coordinator.bundle_request("AT"), key=stranger)
    else:
        world = ProtocolWorld.ready(3)
        round_ = world.contributed() if phase == "answer" else None
        round_ = round_ or world.coordinator.begin_round(1, "train", MODEL)
        request = altered_request(getattr(round_, f"{phase}_request")("AT"), key=stranger)
    run = world.countries["AT"]
    arguments = (ZEROS, ZEROS) if phase == "contribute" else ()
    with refused(run, ReasonCode.NOT_AUTHENTIC):
        getattr(run, phase)(request, *arguments)


def test_a_request_for_another_country_is_refused() -> None:
    """The signed request is the same for all countries, but its parts are for AT alone."""
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["BE"].admit(round_.contribute_request("AT"))


@pytest.mark.parametrize("receiver", ["AT", "BE", "coordinator", ""])
@pytest.mark.parametrize("phase", ["bundle", "encapsulate", "confirm", "contribute", "answer"])
def test_a_request_that_is_not_for_the_whole_roster_is_refused(phase: str, receiver: str) -> None:
    """Otherwise a country could be asked for something that the others never see."""
    world = ProtocolWorld.of(3)
    for step in ("bundle", "encapsulate", "confirm"):
        if phase == step:
            break
        world.set_up(step)
    requester: object = world.coordinator
    if phase == "contribute":
        requester = world.coordinator.begin_round(1, "train", MODEL)
    if phase == "answer":
        requester = world.contributed()
    run = world.countries["AT"]
    request = altered_request(getattr(requester, f"{phase}_request")("AT"), receiver=receiver)
    arguments = (ZEROS, ZEROS) if phase == "contribute" else ()
    with refused(run, ReasonCode.STALE):
        getattr(run, phase)(request, *arguments)


@pytest.mark.parametrize("phase", ["bundle", "encapsulate"])
def test_parts_are_refused_in_requests_that_have_none(phase: str) -> None:
    world = ProtocolWorld.of(3)
    if phase == "encapsulate":
        world.set_up("bundle")
    honest = getattr(world.coordinator, f"{phase}_request")("AT")
    with refused(world.countries["AT"], ReasonCode.MALFORMED):
        getattr(world.countries["AT"], phase)(altered_request(honest, parts=[bytes(32)]))
    getattr(world.countries["AT"], phase)(honest)


def test_each_country_earlier_in_the_roster_has_a_ciphertext_beside_the_request() -> None:
    world = encapsulated_world()
    honest = world.coordinator.confirm_request("CZ")
    ciphertexts = parts_of(honest, MLKEM_CIPHERTEXT_BYTES)
    assert len(ciphertexts) == 2
    assert parts_of(world.coordinator.confirm_request("AT"), MLKEM_CIPHERTEXT_BYTES) == []
    for parts in (
        [],
        ciphertexts[:1],
        [*ciphertexts, ciphertexts[0]],
        [*ciphertexts, b"0"],
        [ciphertexts[0], ciphertexts[1][:-1]],
    ):
        with refused(world.countries["CZ"], ReasonCode.ROSTER):
            world.countries["CZ"].confirm(altered_request(honest, parts=parts))
    with refused(world.countries["CZ"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["CZ"].confirm(altered_request(honest, parts=ciphertexts[::-1]))
    with refused(world.countries["AT"], ReasonCode.ROSTER):
        world.countries["AT"].confirm(honest)
    world.countries["CZ"].confirm(honest)


def test_one_country_cannot_sign_as_another() -> None:
    world = ProtocolWorld.of(3)
    reply = world.countries["AT"].bundle(world.coordinator.bundle_request("AT"))
    with pytest.raises(Refusal) as refusal:
        world.coordinator.take_bundle("BE", reply)
    assert refusal.value.code is ReasonCode.STALE
    reply_message = Reply.FromString(reply)
    reply_message.bundle.sender = "BE"
    with pytest.raises(Refusal) as refusal:
        world.coordinator.take_bundle("BE", serialise(reply_message))
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC


def test_a_key_of_small_order_stops_the_set_up() -> None:
    world = ProtocolWorld.of(3)
    for country in ("AT", "CZ"):
        world.exchange("bundle", country)
    signed = Reply.FromString(
        world.countries["BE"].bundle(world.coordinator.bundle_request("BE"))
    ).bundle
    bundle = Bundle.FromString(signed.body)
    bundle.x25519 = bytes(32)
    weak = with_body(signed, serialise(bundle), IDENTITIES["BE"])
    world.coordinator.take_bundle("BE", serialise(Reply(bundle=weak)))
    for country in ("AT", "CZ"):
        world.exchange("encapsulate", country)
    digests = world.coordinator._bundle_digests()
    ciphertext, _ = encapsulate(setup.public_keys(bundle, "BE"))
    body = serialise(setup.encapsulations(world.terms, "BE", digests, {"CZ": ciphertext}))
    forged = with_body(signed, body, IDENTITIES["BE"], phase=PHASE_ENCAPSULATE)
    reply_message = Reply(encapsulation=EncapsulationReply(signed=forged, ciphertexts=ciphertext))
    world.coordinator.take_encapsulation("BE", serialise(reply_message))
    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        world.countries["AT"].confirm(world.coordinator.confirm_request("AT"))
