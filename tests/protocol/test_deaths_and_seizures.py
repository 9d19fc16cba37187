"""A country's node dies at any point, is behind with its documents, or is seized afterwards.

Every test uses the real state machines of both sides; the attacker has the coordinator's key.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from protocols.errors import ProtocolFault, ReasonCode
from protocols.private_sum import ratchet
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_state import CountryState
from tests.support.protocol_world import (
    MODEL,
    ZEROS,
    ProtocolWorld,
    altered_request,
    refused,
    state_of,
    terms_of,
    versions_of,
    view_of,
)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("step", ["bundle", "encapsulate", "confirm"])
def test_no_round_begins_if_a_country_is_missing_in_set_up(step: str, size: int) -> None:
    for dead in terms_of(size).roster:
        world = ProtocolWorld.of(size)
        for earlier in ("bundle", "encapsulate", "confirm"):
            if earlier == step:
                break
            world.set_up(earlier)
        for country in world.terms.roster:
            if country != dead:
                world.exchange(step, country)
        ahead: dict[str, Callable[[], object]] = {
            "bundle": partial(world.coordinator.encapsulate_request, "AT"),
            "encapsulate": partial(world.coordinator.confirm_request, "AT"),
            "confirm": partial(world.coordinator.begin_round, 1, "train", MODEL),
        }
        with pytest.raises(ProtocolFault, match=dead):
            ahead[step]()


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_a_country_missing_from_a_round_voids_it_and_the_next_one_opens(size: int) -> None:
    for dead in terms_of(size).roster:
        world = ProtocolWorld.ready(size)
        round_ = world.coordinator.begin_round(1, "train", MODEL)
        for country in world.terms.roster:
            if country != dead:
                world.contribute(round_, country)
        with pytest.raises(ProtocolFault, match="agreed"):
            round_.answer_request(round_.close()[0])
        assert round_.open() == VoidRound(
            f"too few countries contributed: {len(round_.contributed)} of the "
            f"{round_.terms.run.smallest_set} needed",
            (dead,),
        )
        after = world.sum(2, "train", dict.fromkeys(world.terms.roster, ZEROS + 1))
        assert isinstance(after, OpenedSum)
        assert (after.values == size).all()


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_a_country_missing_from_the_answers_matters_only_below_t(size: int) -> None:
    for dead in terms_of(size).roster:
        world = ProtocolWorld.ready(size)
        round_ = world.contributed()
        for country in world.terms.roster:
            if country != dead:
                world.answer(round_, country)
        assert isinstance(round_.open(), OpenedSum) == (size - 1 >= world.terms.threshold)


@pytest.mark.parametrize("country", ["AT", "BE", "CZ"])
def test_a_country_restarted_after_every_message_continues(country: str) -> None:
    world = ProtocolWorld.of(3)
    for step in ("bundle", "encapsulate", "confirm"):
        world.set_up(step)
        world.restart(country)
    for number in (1, 2):
        round_ = world.contributed(number)
        world.restart(country)
        for name in world.terms.roster:
            world.answer(round_, name)
        world.restart(country)
        assert isinstance(round_.open(), OpenedSum)


def test_a_country_that_lost_its_keys_takes_no_further_part_in_the_run() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    world.countries["CZ"] = CountryRun.start(view_of("CZ", world.terms))
    with refused(world.countries["CZ"], ReasonCode.STALE):
        world.countries["CZ"].encapsulate(world.coordinator.encapsulate_request("CZ"))


def secrets_in(state: CountryState) -> set[bytes]:
    """Return every secret that a thief of the state finds."""
    open_round = state.open_round
    secrets = {*state.links.values(), *state.kem_secrets.values(), state.key}
    if open_round is not None:
        secrets |= {open_round.own_share, *open_round.seals.values(), *open_round.masks.values()}
    return secrets - {b""}


def test_set_up_secrets_are_erased_once_set_up_is_complete() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    world.set_up("encapsulate")
    before = secrets_in(state_of(world.countries["AT"]))
    assert before
    world.set_up("confirm")
    stored = state_of(world.countries["AT"])
    assert stored.key == b""
    assert not stored.kem_secrets
    assert not before & secrets_in(stored)


def test_no_key_that_opens_a_round_is_left_after_the_answer() -> None:
    world = ProtocolWorld.ready(3)
    earlier = state_of(world.countries["AT"])
    round_ = world.contributed()
    during = state_of(world.countries["AT"])
    assert during.open_round is not None
    world.answer(round_, "AT")
    after = state_of(world.countries["AT"])
    assert after.open_round is None
    assert not (secrets_in(earlier) | secrets_in(during)) & secrets_in(after) - set(
        during.links.values()
    )
    for peer, link in after.links.items():
        assert link != earlier.links[peer]
        past = ratchet.sealing_key(earlier.links[peer], round_.terms.context, peer, "AT")
        assert past != ratchet.sealing_key(link, round_.terms.context, peer, "AT")


def test_mask_keys_are_kept_until_the_answer_but_never_the_seed_or_chain() -> None:
    world = ProtocolWorld.ready(3)
    earlier = state_of(world.countries["AT"]).links
    round_ = world.contributed()
    during = state_of(world.countries["AT"])
    keys = {c: ratchet.mask_key(link, round_.terms.context, "AT", c) for c, link in earlier.items()}
    assert during.open_round is not None
    assert during.open_round.masks == keys
    for country in world.terms.roster:
        world.answer(round_, country)
    seed = round_._seeds(("AT",))["AT"]
    assert not secrets_in(during) & {seed, *earlier.values()}
    assert not secrets_in(state_of(world.countries["AT"])) & set(keys.values())


def test_the_next_round_erases_the_keys_of_a_void_round() -> None:
    world = ProtocolWorld.ready(3)
    world.contributed(1)
    void = secrets_in(state_of(world.countries["AT"]))
    world.contributed(2)
    assert not void & secrets_in(state_of(world.countries["AT"]))


def behind(world: ProtocolWorld, country: str, **newer: int) -> CountryRun:
    """Return a country whose documents are older than `newer`."""
    view = view_of(country, world.terms)
    versions = versions_of(world.terms.roster, **dict.fromkeys(newer, 2))
    return CountryRun.from_bytes(
        world.countries[country].to_bytes(), replace(view, versions=versions)
    )


def test_a_country_that_is_behind_the_coordinator_stops_in_every_phase() -> None:
    world = ProtocolWorld.of(3)
    for step in ("bundle", "encapsulate", "confirm"):
        old = behind(world, "AT", BE=3)
        request = getattr(world.coordinator, f"{step}_request")("AT")
        with refused(old, ReasonCode.DOCUMENTS_BEHIND, naming="country-BE"):
            getattr(old, step)(request)
        world.set_up(step)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    old = behind(world, "AT", BE=3)
    with refused(old, ReasonCode.DOCUMENTS_BEHIND):
        old.contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    for country in world.terms.roster:
        world.contribute(round_, country)
    old = behind(world, "AT", BE=3)
    with refused(old, ReasonCode.DOCUMENTS_BEHIND):
        old.answer(round_.answer_request("AT"))


def hiding(world: ProtocolWorld, request: bytes) -> bytes:
    """Return the request of a coordinator that hides newer documents."""
    old = versions_of(world.terms.roster, AT=2, BE=2, CZ=2)
    return altered_request(request, lambda body: body.versions.CopyFrom(old.to_proto()))


def test_another_country_s_messages_reveal_a_hidden_document() -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    old = behind(world, "AT", CZ=3)
    request = hiding(world, world.coordinator.encapsulate_request("AT"))
    with refused(old, ReasonCode.DOCUMENTS_BEHIND, naming="country-CZ"):
        old.encapsulate(request)
    world.set_up("encapsulate")
    world.set_up("confirm")
    round_ = world.contributed()
    old = behind(world, "AT", CZ=3)
    with refused(old, ReasonCode.DOCUMENTS_BEHIND, naming="country-CZ"):
        old.answer(hiding(world, round_.answer_request("AT")))
