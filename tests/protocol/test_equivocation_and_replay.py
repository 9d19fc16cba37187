"""Rosters, models, studies, rounds and runs that differ from those a country knows.

Every test uses the real state machines of both sides; the attacker has the coordinator's key.
"""

import numpy as np
import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import country_round, shares
from protocols.private_sum.contribution import seed_key
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.masking import Masker
from protocols.proto.round_pb2 import (
    PHASE_ANSWER,
    AnswerRequest,
    Reply,
    RequestBody,
)
from tests.support.protocol_world import (
    COUNT,
    MODEL,
    TRAIN,
    ZEROS,
    ProtocolWorld,
    altered_request,
    coordinator_of,
    refused,
    terms_of,
    view_of,
)


def test_another_roster_than_the_documents_give_is_refused() -> None:
    world = ProtocolWorld.of(4)
    smaller = coordinator_of(terms_of(3))
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].bundle(smaller.bundle_request("AT"))
    claimed = altered_request(
        world.coordinator.bundle_request("AT"), lambda body: body.bundle.roster.pop()
    )
    with refused(world.countries["AT"], ReasonCode.ROSTER):
        world.countries["AT"].bundle(claimed)


@pytest.mark.parametrize("size", [1, 0])
def test_a_roster_below_the_minimum_is_refused(size: int) -> None:
    with pytest.raises(Refusal) as refusal:
        terms_of(3, roster=("AT", "BE", "CZ")[:size])
    assert refusal.value.code is ReasonCode.ROSTER


def test_the_roster_cannot_shrink_between_phases() -> None:
    world = ProtocolWorld.of(4)
    world.set_up("bundle")
    request = altered_request(
        world.coordinator.encapsulate_request("AT"), lambda body: body.encapsulate.bundles.pop()
    )
    with refused(world.countries["AT"], ReasonCode.ROSTER):
        world.countries["AT"].encapsulate(request)


def test_a_country_cannot_be_in_the_roster_twice() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")

    def double(body: RequestBody) -> None:
        body.encapsulate.bundles[2].CopyFrom(body.encapsulate.bundles[1])

    with refused(world.countries["AT"], ReasonCode.ROSTER):
        world.countries["AT"].encapsulate(
            altered_request(world.coordinator.encapsulate_request("AT"), double)
        )


def test_countries_shown_different_models_open_nothing() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    other = world.twin().begin_round(1, "train", b"another model")
    for country in ("AT", "BE"):
        world.contribute(round_, country)
    odd = world.countries["CZ"].contribute(other.contribute_request("CZ"), ZEROS, ZEROS)
    with pytest.raises(Refusal) as refusal:
        round_.take_contribution("CZ", odd)
    assert refusal.value.code is ReasonCode.STALE
    heads = [round_._heads["AT"], round_._heads["BE"], Reply.FromString(odd).contribution.head]

    def mixed(body: RequestBody) -> None:
        content = AnswerRequest(round=1, countries=world.terms.roster, heads=heads)
        body.answer.CopyFrom(content)

    request = altered_request(round_.contribute_request("AT"), mixed, model=b"", phase=PHASE_ANSWER)
    with refused(world.countries["AT"], ReasonCode.STALE, naming="CZ"):
        world.countries["AT"].answer(request)


@pytest.mark.parametrize("second_model", [MODEL, b"another model"])
def test_masks_cancel_between_countries_only_when_all_saw_one_model(second_model: bytes) -> None:
    """Even with every seed known, words made in two contexts add up to noise, not to a sum."""
    world = ProtocolWorld.ready(3)
    seed = b"\x01" * shares.ELEMENT_BYTES
    rounds = {c: world.twin().begin_round(1, "train", MODEL) for c in ("AT", "BE")}
    rounds["CZ"] = world.twin().begin_round(1, "train", second_model)
    words = np.zeros(rounds["AT"].terms.words, np.uint64)
    masker = Masker(words.size)
    for country, round_ in rounds.items():
        world.restart(country, entropy=lambda size: b"\x01" * size)
        reply = world.contribute(round_, country)
        words += np.frombuffer(Reply.FromString(reply).words, np.uint64)
        masker.subtract(seed_key(round_.terms, country, seed), words)
    assert words.any() == (second_model != MODEL)


def test_a_study_changed_between_phases_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    changed = terms_of(3, study="sha256:" + "6" * 64)
    with pytest.raises(Refusal) as refusal:
        CountryRun.from_bytes(world.countries["AT"].to_bytes(), view_of("AT", changed))
    assert refusal.value.code is ReasonCode.STALE


@pytest.mark.parametrize(
    "changes",
    [
        {"study": "sha256:" + "6" * 64},
        {"agreement": "sha256:" + "6" * 64},
        {"run_id": bytes(16)},
        {"colluding": 0},
        {"honest": 2, "colluding": 0},
        {"task_kind": "stats/count"},
        {"mechanisms": (TRAIN.model_copy(update={"noise_std": 3}), COUNT)},
    ],
    ids=lambda value: next(iter(value)),
)
def test_terms_other_than_those_of_the_country_are_refused(changes: dict[str, object]) -> None:
    world = ProtocolWorld.of(3)
    other = coordinator_of(terms_of(3, **changes))
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].bundle(other.bundle_request("AT"))


def test_a_kind_of_round_that_the_study_lacks_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    request = altered_request(
        round_.contribute_request("AT"),
        lambda body: setattr(body.contribute, "phase_kind", "evaluate"),
    )
    with refused(world.countries["AT"], ReasonCode.TASK_UNKNOWN):
        world.countries["AT"].admit(request)


def test_training_does_not_pass_as_counting() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    request = altered_request(
        round_.contribute_request("AT"),
        lambda body: setattr(body.contribute, "phase_kind", "count"),
    )
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].admit(request)


def test_a_replayed_round_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    request = round_.contribute_request("AT")
    world.contribute(round_, "AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].contribute(request, ZEROS, ZEROS)
    world.restart("AT")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].contribute(request, ZEROS, ZEROS)


def test_a_second_model_for_a_contributed_round_is_refused() -> None:
    world = ProtocolWorld.ready(3)
    world.contribute(world.coordinator.begin_round(1, "train", MODEL), "AT")
    other = world.twin().begin_round(1, "train", b"another model")
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].contribute(other.contribute_request("AT"), ZEROS, ZEROS)


def test_an_earlier_round_is_refused_after_a_later_one() -> None:
    world = ProtocolWorld.ready(3)
    late = world.twin().begin_round(1, "train", MODEL)
    world.contributed(2)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].contribute(late.contribute_request("AT"), ZEROS, ZEROS)


def test_messages_of_another_run_are_refused() -> None:
    world, past = ProtocolWorld.ready(3), ProtocolWorld.ready(3, run_id=bytes(16))
    round_ = past.coordinator.begin_round(1, "train", MODEL)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    fresh = ProtocolWorld.of(3)
    with refused(fresh.countries["AT"], ReasonCode.STALE):
        fresh.countries["AT"].bundle(past.coordinator.bundle_request("AT"))


def test_bundles_of_another_run_are_refused() -> None:
    world, past = ProtocolWorld.of(3), ProtocolWorld.of(3, run_id=bytes(16))
    world.set_up("bundle")
    past.set_up("bundle")

    def mix(body: RequestBody) -> None:
        body.encapsulate.bundles[1].CopyFrom(past.coordinator._bundles["BE"])

    request = altered_request(world.coordinator.encapsulate_request("AT"), mix)
    with refused(world.countries["AT"], ReasonCode.STALE, naming="BE"):
        world.countries["AT"].encapsulate(request)


def test_a_round_number_out_of_range_is_refused_at_once() -> None:
    world = ProtocolWorld.ready(3)
    far = world.coordinator.begin_round(country_round.LARGEST_SKIP + 1, "train", MODEL)
    with refused(world.countries["AT"], ReasonCode.STALE):
        world.countries["AT"].admit(far.contribute_request("AT"))


def test_a_kind_of_round_runs_no_more_often_than_it_was_charged_for() -> None:
    world = ProtocolWorld.ready(3)
    for number in range(1, TRAIN.rounds + 1):
        world.contributed(number)
        world.restart("AT")
    over = world.coordinator.begin_round(TRAIN.rounds + 1, "train", MODEL)
    with refused(world.countries["AT"], ReasonCode.BUDGET):
        world.countries["AT"].admit(over.contribute_request("AT"))
    counted = world.coordinator.begin_round(TRAIN.rounds + 2, "count", b"")
    assert world.countries["AT"].admit(counted.contribute_request("AT")).mechanism == COUNT
