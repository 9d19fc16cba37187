"""A coordinator swaps keys, encapsulates in another's name, or is not the coordinator.

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


def swapped_bundle(body: RequestBody, country: str, key: SigningKey) -> HybridKey:
    """Put other keys into a country's bundle and sign them with `key`; return the private keys."""
    own = HybridKey.generate()
    message = next(m for m in body.encapsulate.bundles if m.sender == country)
    bundle = Bundle.FromString(message.body)
    bundle.x25519, bundle.mlkem = own.public.x25519, own.public.mlkem
    message.CopyFrom(with_body(message, serialise(bundle), key))
    return own


@pytest.mark.parametrize("victim", ["BE", "CZ"])
def test_keys_swapped_by_the_coordinator_stop_the_set_up(victim: str) -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    forged = SigningKey.generate()
    request = altered_request(
        world.coordinator.encapsulate_request("AT"),
        lambda body: swapped_bundle(body, victim, forged),
    )
    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming=victim):
        world.countries["AT"].encapsulate(request)


def test_keys_changed_without_a_new_signature_stop_the_set_up() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")

    def flip(body: RequestBody) -> None:
        message = body.encapsulate.bundles[1]
        bundle = Bundle.FromString(message.body)
        bundle.x25519 = HybridKey.generate().public.x25519
        message.body = serialise(bundle)

    request = altered_request(world.coordinator.encapsulate_request("AT"), flip)
    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        world.countries["AT"].encapsulate(request)


def test_own_bundle_replaced_stops_the_set_up_even_when_signed_by_a_stolen_key() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    request = altered_request(
        world.coordinator.encapsulate_request("BE"),
        lambda body: swapped_bundle(body, "BE", IDENTITIES["BE"]),
    )
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="this country's name"):
        world.countries["BE"].encapsulate(request)


def test_a_colluding_country_that_shows_two_bundles_confirms_with_nobody_it_deceived() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    request = altered_request(
        world.coordinator.encapsulate_request("AT"),
        lambda body: swapped_bundle(body, "CZ", IDENTITIES["CZ"]),
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
    begun = world.coordinator.bundle_request("BE")
    retold_request = altered_request(begun, deliver, parts=parts, phase=PHASE_CONFIRM)
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["BE"].confirm(retold_request)


def test_a_second_bundle_is_neither_made_nor_accepted() -> None:
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
    """Return CZ's confirm request with another ciphertext of AT, the first lower country."""
    honest = world.coordinator.confirm_request("CZ")
    parts = [ciphertext, *parts_of(honest, MLKEM_CIPHERTEXT_BYTES)[1:]]
    return altered_request(honest, change, parts=parts)


def test_a_ciphertext_in_anothers_name_is_refused() -> None:
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


def test_a_colluding_country_that_signs_two_lists_confirms_with_nobody() -> None:
    """Both lists verify, so only the transcripts differ: no MAC of the deceived pair fits."""
    world = encapsulated_world()
    body, ciphertext = encapsulated_for(world, "AT", "CZ")

    def other(content: RequestBody) -> None:
        message = content.confirm.encapsulations[0]
        message.CopyFrom(with_body(message, body, IDENTITIES["AT"]))

    world.exchange("confirm", "BE")
    request = with_ciphertext(world, ciphertext, other)
    world.coordinator.take_confirmation("CZ", world.countries["CZ"].confirm(request))
    world.exchange("confirm", "AT")
    opened = world.coordinator.begin_round(1, "train", MODEL)
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="CZ"):
        world.countries["BE"].admit(opened.contribute_request("BE"))


def test_nobody_contributes_before_every_mac_verifies() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    honest = opened.contribute_request("AT")

    macs = parts_of(honest, MAC_BYTES)
    flipped = bytes([macs[1][0] ^ 1]) + macs[1][1:]
    for parts, named in (
        ([macs[0], flipped], "CZ"),
        (macs[::-1], "BE"),
        (parts_of(opened.contribute_request("BE"), MAC_BYTES), "BE"),
    ):
        with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming=named):
            world.countries["AT"].contribute(altered_request(honest, parts=parts), ZEROS, ZEROS)
    for parts in (macs[:1], [], [*macs, macs[0]], [*macs, b"0"]):
        with refused(world.countries["AT"], ReasonCode.ROSTER):
            world.countries["AT"].contribute(altered_request(honest, parts=parts), ZEROS, ZEROS)
    world.countries["AT"].contribute(honest, ZEROS, ZEROS)


def test_nobody_contributes_before_set_up_is_complete() -> None:
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    early = CountryRun.start(view_of("AT", world.terms))
    with refused(early, ReasonCode.STALE):
        early.contribute(opened.contribute_request("AT"), ZEROS, ZEROS)


@pytest.mark.parametrize("phase", ["bundle", "contribute", "answer"])
def test_a_request_by_another_key_is_refused(phase: str) -> None:
    stranger = SigningKey.generate()
    if phase == "bundle":
        world = ProtocolWorld.of(3)
        request = altered_request(world.coordinator.bundle_request("AT"), key=stranger)
    else:
        world = ProtocolWorld.ready(3)
        opened = world.contributed() if phase == "answer" else None
        opened = opened or world.coordinator.begin_round(1, "train", MODEL)
        request = altered_request(getattr(opened, f"{phase}_request")("AT"), key=stranger)
    run = world.countries["AT"]
    arguments = (ZEROS, ZEROS) if phase == "contribute" else ()
    with refused(run, ReasonCode.NOT_AUTHENTIC):
        getattr(run, phase)(request, *arguments)


def test_a_request_for_another_country_is_refused() -> None:
    """The words are for all; BE sees from the parts for AT that the request is not for it."""
    world = ProtocolWorld.ready(3)
    opened = world.coordinator.begin_round(1, "train", MODEL)
    with refused(world.countries["BE"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["BE"].admit(opened.contribute_request("AT"))


@pytest.mark.parametrize("receiver", ["AT", "BE", "coordinator", ""])
@pytest.mark.parametrize("phase", ["bundle", "encapsulate", "confirm", "contribute", "answer"])
def test_a_request_that_is_not_for_the_whole_roster_is_refused(phase: str, receiver: str) -> None:
    """Otherwise a country could be asked in words that the others never see."""
    world = ProtocolWorld.of(3)
    for step in ("bundle", "encapsulate", "confirm"):
        if phase == step:
            break
        world.set_up(step)
    asking: object = world.coordinator
    if phase == "contribute":
        asking = world.coordinator.begin_round(1, "train", MODEL)
    if phase == "answer":
        asking = world.contributed()
    run = world.countries["AT"]
    request = altered_request(getattr(asking, f"{phase}_request")("AT"), receiver=receiver)
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


def test_every_lower_country_has_a_ciphertext_beside_the_request() -> None:
    world = encapsulated_world()
    honest = world.coordinator.confirm_request("CZ")
    given = parts_of(honest, MLKEM_CIPHERTEXT_BYTES)
    assert len(given) == 2
    assert parts_of(world.coordinator.confirm_request("AT"), MLKEM_CIPHERTEXT_BYTES) == []
    for parts in ([], given[:1], [*given, given[0]], [*given, b"0"], [given[0], given[1][:-1]]):
        with refused(world.countries["CZ"], ReasonCode.ROSTER):
            world.countries["CZ"].confirm(altered_request(honest, parts=parts))
    with refused(world.countries["CZ"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["CZ"].confirm(altered_request(honest, parts=given[::-1]))
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
    lie = with_body(signed, body, IDENTITIES["BE"], phase=PHASE_ENCAPSULATE)
    reply_message = Reply(encapsulation=EncapsulationReply(signed=lie, ciphertexts=ciphertext))
    world.coordinator.take_encapsulation("BE", serialise(reply_message))
    with refused(world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        world.countries["AT"].confirm(world.coordinator.confirm_request("AT"))
