"""The independent country refuses what the page says, in set-up and when it contributes.

Each lie is signed with the coordinator's own key. Afterwards the country answers the honest
request: the refusal has changed nothing.
"""

from collections.abc import Callable

import pytest

from keys.identity import SigningKey
from protocols.numerics.mechanism import Scope
from protocols.proto import round_pb2 as pb
from tests.support.protocol_world import (
    COUNT,
    IDENTITIES,
    TRAIN,
    altered_request,
    parts_of,
    with_body,
)
from tests.vectors.derivations import ENCAPSULATE, RefusedRequest, bind, split_by_country
from tests.vectors.seat import (
    CIPHERTEXT,
    MAC,
    ME,
    OTHER,
    STRANGER,
    WRONG_PARTS,
    Change,
    in_set_up,
    nothing,
    other_parts,
    refusal,
    require_refusal,
    world_with,
    zeros,
)

LATE = "CZ"
"""Two countries are earlier in the roster than the country under test."""

# ---- set-up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "roster",
    [["AT", "BE"], ["AT", "CZ", "DK"], ["BE", "AT", "CZ"], ["AT", "BE", "BE"], ["AT", "BE", "XX"]],
    ids=["too few", "without it", "not sorted", "twice", "a stranger"],
)
def test_an_invalid_roster_is_refused(roster: list[str]) -> None:
    world, country = in_set_up(0)

    def change(body: pb.RequestBody) -> None:
        body.bundle.roster[:] = roster

    context = country.terms.run_context(world.terms.run_id, roster)
    require_refusal(
        country, world.coordinator.bundle_request(ME), "roster", change, context=context
    )
    world.set_up("bundle")


def swap_bundle(key: SigningKey) -> Change:
    """Replace OTHER's bundle by another one, signed with this key."""

    def change(body: pb.RequestBody) -> None:
        message = next(signed for signed in body.encapsulate.bundles if signed.sender == OTHER)
        bundle = pb.Bundle.FromString(message.body)
        bundle.x25519 = bytes([bundle.x25519[0] ^ 1]) + bundle.x25519[1:]
        message.CopyFrom(with_body(message, bundle.SerializeToString(deterministic=True), key))

    return change


def test_a_swapped_bundle_that_its_country_did_not_sign_is_refused() -> None:
    world, country = in_set_up(1)
    honest = world.coordinator.encapsulate_request(ME)
    require_refusal(country, honest, "not-authentic", swap_bundle(STRANGER))
    world.set_up("encapsulate")


def test_a_swapped_bundle_that_its_country_signed_is_refused() -> None:
    """Others encapsulated to the first bundle, which their signed lists show."""
    world, country = in_set_up(1)
    swapped = altered_request(
        world.coordinator.encapsulate_request(ME), swap_bundle(IDENTITIES[OTHER])
    )
    assert not refusal(country.take(swapped))
    for name in ("AT", OTHER, "DK"):
        world.exchange("encapsulate", name)
    reply = pb.Reply.FromString(country.take(swapped))
    world.coordinator._encapsulations[ME] = reply.encapsulation.signed
    given = reply.encapsulation.ciphertexts
    world.coordinator._ciphertexts[ME] = split_by_country(given, [OTHER, "DK"], CIPHERTEXT)
    assert refusal(country.take(world.coordinator.confirm_request(ME))) == "not-authentic"


def bundle_of_other(**fields: bytes) -> Change:
    """Give OTHER's bundle these fields, signed by OTHER."""

    def change(body: pb.RequestBody) -> None:
        message = next(signed for signed in body.encapsulate.bundles if signed.sender == OTHER)
        bundle = pb.Bundle.FromString(message.body)
        bundle.MergeFrom(pb.Bundle(**fields))  # type: ignore[arg-type]
        message.CopyFrom(with_body(message, bundle.SerializeToString(), IDENTITIES[OTHER]))

    return change


def test_bundles_with_malformed_keys_and_a_list_without_one_bundle_are_refused() -> None:
    world, country = in_set_up(1)
    honest = world.coordinator.encapsulate_request(ME)
    require_refusal(country, honest, "not-authentic", bundle_of_other(x25519=bytes(31)))
    require_refusal(country, honest, "not-authentic", bundle_of_other(mlkem=bytes(1183)))
    require_refusal(country, honest, "not-authentic", bundle_of_other(mlkem=b"\xff" * 1184))
    require_refusal(country, honest, "roster", lambda body: body.encapsulate.bundles.pop())
    world.set_up("encapsulate")


def test_another_bundle_in_its_own_name_is_refused() -> None:
    world, country = in_set_up(1)

    def change(body: pb.RequestBody) -> None:
        own_bundle = next(signed for signed in body.encapsulate.bundles if signed.sender == ME)
        own_bundle.CopyFrom(with_body(own_bundle, body.encapsulate.bundles[0].body, IDENTITIES[ME]))

    require_refusal(country, world.coordinator.encapsulate_request(ME), "not-authentic", change)
    world.set_up("encapsulate")


def test_a_ciphertext_that_was_not_signed_is_refused() -> None:
    world, country = in_set_up(2, LATE)
    honest = world.coordinator.confirm_request(LATE)
    first, second = parts_of(honest, CIPHERTEXT)
    for parts in ([bytes(CIPHERTEXT), second], [first, bytes(CIPHERTEXT)], [second, first]):
        require_refusal(country, honest, "not-authentic", parts=parts)
    world.set_up("confirm")


@pytest.mark.parametrize("wrong", WRONG_PARTS)
def test_missing_or_extra_ciphertexts_of_earlier_countries_are_refused(wrong: str) -> None:
    world, country = in_set_up(2, LATE)
    honest = world.coordinator.confirm_request(LATE)
    require_refusal(
        country, honest, "roster", parts=other_parts(parts_of(honest, CIPHERTEXT))[wrong]
    )
    world.set_up("confirm")


def list_of(sender: str, alter: Callable[[pb.Encapsulations], object]) -> Change:
    """Change a country's signed list of ciphertexts, and sign it as that country."""

    def change(body: pb.RequestBody) -> None:
        message = next(signed for signed in body.confirm.encapsulations if signed.sender == sender)
        encapsulations = pb.Encapsulations.FromString(message.body)
        alter(encapsulations)
        message.CopyFrom(with_body(message, encapsulations.SerializeToString(), IDENTITIES[sender]))

    return change


def test_lists_for_other_bundles_or_countries_and_a_changed_own_list_are_refused() -> None:
    world, country = in_set_up(2)
    honest = world.coordinator.confirm_request(ME)

    def other_sender(body: pb.Encapsulations) -> None:
        body.sender_bundle = bytes(32)

    def other_receiver(body: pb.Encapsulations) -> None:
        body.encapsulations[0].receiver_bundle = bytes(32)

    def other_mark(body: pb.Encapsulations) -> None:
        body.encapsulations[0].ciphertext_digest = bytes(32)

    for alter in (other_sender, other_receiver, lambda body: body.encapsulations.pop()):
        require_refusal(country, honest, "not-authentic", list_of(OTHER, alter))
    require_refusal(country, honest, "not-authentic", list_of(ME, other_mark))
    require_refusal(country, honest, "roster", lambda body: body.confirm.encapsulations.pop())
    world.set_up("confirm")


def test_a_signed_ciphertext_of_another_length_is_refused() -> None:
    world, country = in_set_up(2)
    honest = world.coordinator.confirm_request(ME)
    (whole,) = parts_of(honest, CIPHERTEXT)
    mark = bind(world.terms.context, ENCAPSULATE, "AT", ME, whole[:-1])

    def alter(body: pb.Encapsulations) -> None:
        body.encapsulations[0].ciphertext_digest = mark

    require_refusal(country, honest, "roster", list_of("AT", alter), parts=[whole[:-1]])


def test_a_run_of_other_terms_and_a_second_roster_are_refused() -> None:
    world, country = in_set_up(0)
    honest = world.coordinator.bundle_request(ME)

    def shorten_run_id(body: pb.RequestBody) -> None:
        body.run_id = bytes(15)

    def drop_a_country(body: pb.RequestBody) -> None:
        body.bundle.roster[:] = ["AT", "BE", "CZ"]

    given = country.terms
    context = given.run_context(bytes(15), world.terms.roster)
    require_refusal(country, honest, "malformed", shorten_run_id, context=context)
    require_refusal(country, honest, "stale", nothing, context=bytes(32))
    world.set_up("bundle")
    context = given.run_context(world.terms.run_id, ["AT", "BE", "CZ"])
    require_refusal(country, honest, "stale", drop_a_country, context=context)
    world.set_up("encapsulate")


def test_a_key_of_small_order_is_refused() -> None:
    world, country = in_set_up(2)
    assert country.run is not None
    country.run.bundles[OTHER].x25519 = bytes(32)
    assert refusal(country.take(world.coordinator.confirm_request(ME))) == "not-authentic"


def test_a_step_out_of_order_is_refused() -> None:
    world, country = in_set_up(1)

    def change(body: pb.RequestBody) -> None:
        body.confirm.SetInParent()

    require_refusal(
        country, world.coordinator.bundle_request(ME), "stale", change, phase=pb.PHASE_CONFIRM
    )
    world.set_up("encapsulate")


# ---- every request -----------------------------------------------------------------------


def test_a_request_by_another_sender_or_for_another_receiver_is_refused() -> None:
    world, country = world_with(ME)
    honest = zeros(world)
    require_refusal(country, honest, "not-authentic", nothing, key=STRANGER)
    for receiver in (OTHER, ME, "coordinator", ""):
        require_refusal(country, honest, "stale", nothing, receiver=receiver)
    require_refusal(country, honest, "stale", nothing, sender=OTHER)
    require_refusal(country, honest, "stale", nothing, context=bytes(32))
    require_refusal(country, honest, "malformed", nothing, phase=pb.PHASE_ANSWER)
    require_refusal(country, honest, "malformed", nothing, phase=pb.PHASE_ANSWER, model=b"")
    require_refusal(country, honest, "malformed", nothing, model=bytes(48 * 2**20))
    assert refusal(country.take(b"\xff")) == "malformed"
    unknown = pb.Signed(phase=300, sender="coordinator", receiver="roster")  # type: ignore[arg-type]
    assert refusal(country.take(pb.Request(signed=unknown).SerializeToString())) == "malformed"
    assert not refusal(country.take(honest))


def test_a_request_under_other_documents_or_with_wrong_content_is_refused() -> None:
    world, country = world_with(ME)
    honest = zeros(world)

    def agreement(body: pb.RequestBody) -> None:
        body.agreement = "sha256:" + "b" * 64

    def study(body: pb.RequestBody) -> None:
        body.study = "sha256:" + "b" * 64

    def add_versions(body: pb.RequestBody) -> None:
        body.versions.countries.update({str(at): 0 for at in range(257)})

    require_refusal(country, honest, "stale", agreement)
    require_refusal(country, honest, "unknown-study", study)

    def lengthen_study(body: pb.RequestBody) -> None:
        body.study = "s" * 8 * 2**20

    require_refusal(country, honest, "malformed", add_versions)
    require_refusal(country, honest, "malformed", lengthen_study)
    require_refusal(country, honest, "malformed", lambda body: body.ClearField("contribute"))
    require_refusal(
        country, world.coordinator.confirm_request(ME), "malformed", nothing, model=b"a model"
    )
    assert not refusal(country.take(honest))


def test_parts_in_requests_that_have_none_are_refused() -> None:
    for at, step in enumerate(("bundle", "encapsulate")):
        world, country = in_set_up(at)
        honest = getattr(world.coordinator, f"{step}_request")(ME)
        require_refusal(country, honest, "malformed", parts=[bytes(MAC)])
        world.set_up(step)


@pytest.mark.parametrize("newer", ["root", "targets", "a country", "a stranger"])
def test_newer_documents_than_its_own_are_refused(newer: str) -> None:
    world, country = world_with(ME)
    honest = zeros(world)

    def change(body: pb.RequestBody) -> None:
        if newer.startswith("a "):
            body.versions.countries[{"a country": OTHER, "a stranger": "XX"}[newer]] = 4
        else:
            setattr(body.versions, newer, 4)

    require_refusal(country, honest, "documents-behind", change)
    assert not refusal(country.take(honest))


# ---- contribute --------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_wrong_mac_is_refused_and_nothing_is_contributed(at: int) -> None:
    world, country = world_with(ME)
    honest = zeros(world)

    macs = parts_of(honest, MAC)
    require_refusal(
        country, honest, "not-authentic", parts=[*macs[:at], bytes(MAC), *macs[at + 1 :]]
    )
    require_refusal(country, honest, "not-authentic", parts=[*macs[1:], macs[0]])
    assert country.round is None
    assert not refusal(country.take(honest))


@pytest.mark.parametrize("wrong", WRONG_PARTS)
def test_other_macs_than_one_of_each_other_country_are_refused(wrong: str) -> None:
    world, country = world_with(ME)
    honest = zeros(world)
    require_refusal(country, honest, "roster", parts=other_parts(parts_of(honest, MAC))[wrong])
    assert country.round is None
    assert not refusal(country.take(honest))


def test_another_request_for_the_same_place_is_refused() -> None:
    world, country = world_with(ME)
    honest = zeros(world)
    first = country.take(honest)
    twin = world.twin().begin_round(1, "train", b"another model")
    assert refusal(country.take(twin.contribute_request(ME))) == "stale"
    require_refusal(country, honest, "stale", nothing, model=b"another model")
    require_refusal(country, honest, "stale", parts=[bytes(3 * MAC)])
    require_refusal(country, honest, "stale", parts=[])
    assert country.take(honest) == first


def test_rounds_too_far_ahead_in_the_past_or_beyond_the_schedule_are_refused() -> None:
    world, country = world_with(ME)
    assert refusal(country.take(zeros(world, 10_001))) == "stale"
    world.coordinator = world.twin()
    for number in (3, 4, 5, 10_005):
        assert not refusal(country.take(zeros(world, number)))
    assert refusal(country.take(zeros(world, 10_006))) == "budget"
    world.coordinator = world.twin()
    assert refusal(country.take(zeros(world, 2))) == "stale"


def test_a_kind_of_round_that_the_study_does_not_have_is_refused() -> None:
    world, country = world_with(ME)

    def change(body: pb.RequestBody) -> None:
        body.contribute.phase_kind = "test"

    require_refusal(country, zeros(world), "task-unknown", change)


def test_a_kind_of_round_that_never_leaves_a_country_is_refused() -> None:
    local = TRAIN.model_copy(update={"scope": Scope.LOCAL})
    world, country = world_with(ME, mechanisms=(local, COUNT))
    assert refusal(country.take(zeros(world))) == "task-unknown"


def test_a_refusal_because_of_records_changes_no_state() -> None:
    world, country = world_with(ME)
    honest, mine = zeros(world), country.record

    def decline(*_arguments: object) -> list[int]:
        raise RefusedRequest("declined")

    country.record = decline
    assert refusal(country.take(honest)) == "declined"
    country.record = mine
    assert not refusal(country.take(honest))
