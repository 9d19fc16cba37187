import json

import pytest

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_state import CountryState, Stage
from protocols.private_sum.messages import SHARE_BYTES, read_request, split_parts
from protocols.private_sum.shares import commit
from protocols.proto.round_pb2 import Answer, Reply
from tests.support.protocol_world import (
    COUNT,
    MODEL,
    TRAIN,
    ZEROS,
    ProtocolWorld,
    state_of,
    terms_of,
    view_of,
)


def test_a_run_goes_through_its_stages_in_order() -> None:
    world = ProtocolWorld.of(3)
    run = world.countries["AT"]
    stages = [state_of(run).stage]
    for step in ("bundle", "encapsulate", "confirm"):
        world.set_up(step)
        stages.append(state_of(run).stage)
    round_ = world.contributed()
    stages.append(state_of(run).stage)
    assert stages == list(Stage)
    assert (run.round_number, run.awaits_answer) == (1, True)
    world.answer(round_, "AT")
    assert (run.round_number, run.awaits_answer) == (1, False)


@pytest.mark.parametrize("step", ["encapsulate", "confirm"])
def test_no_step_of_set_up_can_be_left_out(step: str) -> None:
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    if step == "confirm":
        world.set_up("encapsulate")
    early = CountryRun.start(view_of("AT", world.terms))
    with pytest.raises(Refusal) as refusal:
        getattr(early, step)(getattr(world.coordinator, f"{step}_request")("AT"))
    assert refusal.value.code is ReasonCode.STALE


def test_admission_changes_nothing_and_returns_the_country_s_own_terms() -> None:
    world = ProtocolWorld.ready(3)
    run, round_ = world.countries["AT"], world.coordinator.begin_round(1, "train", MODEL)
    before = run.to_bytes()
    terms = run.admit(round_.contribute_request("AT"))
    assert run.to_bytes() == before
    assert terms.mechanism is world.terms.mechanisms[0] is TRAIN
    assert terms.context == round_.terms.context


def test_state_survives_storage() -> None:
    world = ProtocolWorld.ready(3)
    world.contributed()
    for run in world.countries.values():
        again = CountryRun.from_bytes(run.to_bytes(), run._view)
        assert again.to_bytes() == run.to_bytes()


@pytest.mark.parametrize(
    "stored",
    [b"", b"{}", b"null", b"[]", b'{"run":"AAAA","extra":1}', b'{"run":7}', b"\xff"],
    ids=str,
)
def test_a_malformed_state_gives_a_clear_error(stored: bytes) -> None:
    with pytest.raises(ProtocolFault, match="stored state"):
        CountryRun.from_bytes(stored, view_of("AT", terms_of(3)))


def test_a_fault_in_stored_state_does_not_show_the_state() -> None:
    stored = json.dumps({"run": "AAAA", "key": {"secret": 12345}}).encode()
    with pytest.raises(ProtocolFault) as fault:
        CountryRun.from_bytes(stored, view_of("AT", terms_of(3)))
    assert "12345" not in str(fault.value)
    assert fault.value.__cause__ is None


def test_rounds_of_two_kinds_share_one_sequence_of_numbers() -> None:
    world = ProtocolWorld.ready(3)
    zeros = dict.fromkeys(world.terms.roster, ZEROS)
    counts = dict.fromkeys(world.terms.roster, ZEROS[: COUNT.dimension])
    assert isinstance(world.sum(1, "train", zeros), OpenedSum)
    assert isinstance(world.sum(2, "count", counts), OpenedSum)
    assert isinstance(world.sum(3, "train", zeros), OpenedSum)
    assert state_of(world.countries["AT"]).used == {"train": 2, "count": 1}


def test_noise_and_values_are_contributed_as_one_sum() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country in world.terms.roster:
        request = round_.contribute_request(country)
        reply = world.countries[country].contribute(request, ZEROS + 5, ZEROS - 2)
        round_.take_contribution(country, reply)
    for country in world.terms.roster:
        world.answer(round_, country)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert (result.values == 9).all()


def test_an_answer_has_a_share_of_the_seed_of_every_country_and_its_round() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed(2)
    reply = Reply.FromString(world.answer(round_, "BE"))
    answer = Answer.FromString(reply.answer.body)
    shares = split_parts(answer.shares, world.terms.roster, SHARE_BYTES)
    assert all(
        round_._commitments[owner][32:64] == commit(round_.terms.context, owner, "BE", share)
        for owner, share in shares.items()
    ), "the second share of each owner, which is BE's"
    assert (answer.round, list(answer.unopenable), answer.masks) == (2, [], b"")


def test_a_failed_contribution_may_be_repeated() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    request = round_.contribute_request("AT")
    with pytest.raises(ProtocolFault):
        world.countries["AT"].contribute(request, ZEROS[:2], ZEROS)
    world.contribute(round_, "AT")


def test_a_journal_can_distinguish_a_repeated_request_from_another() -> None:
    """As the door does: same place and digest give the same bytes; another digest is refused."""
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    twin = world.twin().begin_round(1, "train", b"another model")
    first, again, other = (
        read_request(opening.contribute_request("AT")) for opening in (round_, round_, twin)
    )
    places = {(r.run_id, r.phase, r.round_number) for r in (first, again, other)}
    assert len(places) == 1
    assert first.digest == again.digest != other.digest


def test_unknown_fields_in_stored_state_are_refused() -> None:
    with pytest.raises(ValueError, match="extra"):
        CountryState(run=bytes(32), mode="fast")  # type: ignore[call-arg]
