"""Attacks on the set-up, the terms and the parts of a round, and what the liar could open.

Each attack runs to its end with real countries. Attacks on the set that is opened are in
`test_smaller_sets.py` and `test_assents.py`; `test_threats.py` lists which test covers which
threat.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from keys.hybrid import encapsulate
from keys.identity import SigningKey
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum import setup
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.country_run import CountryRun
from protocols.proto.round_pb2 import Bundle, Encapsulations, Reply, RequestBody
from protocols.wire.signed_message import serialise
from tests.support.lying_coordinator import ROSTER, LyingCoordinator, five
from tests.support.protocol_world import (
    COORDINATOR_KEY,
    IDENTITIES,
    MODEL,
    ZEROS,
    ProtocolWorld,
    altered_request,
    coordinator_of,
    parts_of,
    refused,
    terms_of,
    versions_of,
    view_of,
    with_body,
)

# ---- the set-up


def puppets(victim: str, *, believed: bool) -> ProtocolWorld:
    """Return a world in which the liar plays all countries but the victim, with its own keys.

    `believed` makes the victim take these keys for the others', which no document says.
    """
    terms = terms_of(3)
    keys = {
        country: IDENTITIES[country] if country == victim else SigningKey.generate()
        for country in terms.roster
    }
    peers = {country: key.public for country, key in keys.items()}
    views = {
        country: replace(view_of(country, terms), identity=key, peers=peers)
        for country, key in keys.items()
        if country != victim or believed
    }
    runs = {
        country: CountryRun.start(views.get(country, view_of(country, terms)))
        for country in terms.roster
    }
    versions = versions_of(terms.roster)
    coordinator = CoordinatorRun(terms, peers=peers, sign=COORDINATOR_KEY.sign, versions=versions)
    return ProtocolWorld(terms, coordinator, runs)


@pytest.mark.parametrize("victim", ["AT", "BE", "CZ"])
def test_keys_swapped_for_those_of_the_liar_open_nothing(victim: str) -> None:
    """A country that accepted the keys would be opened alone; the documents give other keys."""
    others = [country for country in ("AT", "BE", "CZ") if country != victim]
    world = puppets(victim, believed=True)
    for step in ("bundle", "encapsulate", "confirm"):
        world.set_up(step)
    liar = LyingCoordinator(world, others)
    round_ = liar.contributed()
    liar.answer(round_, victim, world.terms.roster)
    assert liar.opens(round_) == ((victim,),)

    world = puppets(victim, believed=False)
    world.set_up("bundle")
    with refused(world.countries[victim], ReasonCode.NOT_AUTHENTIC, naming=others[0]):
        world.exchange("encapsulate", victim)
    with pytest.raises(ProtocolFault):
        world.set_up("confirm")


def test_a_ciphertext_in_the_name_of_another_country_opens_nothing() -> None:
    """The liar knows the secret that it encapsulated to CZ as AT; CZ refuses, and all stop."""
    world = ProtocolWorld.of(3)
    world.set_up("bundle")
    world.set_up("encapsulate")
    bundle = Bundle.FromString(world.coordinator._bundles["CZ"].body)
    ciphertext, _ = encapsulate(setup.public_keys(bundle, "CZ"))
    body = Encapsulations.FromString(world.coordinator._encapsulations["AT"].body)
    digest = setup.ciphertext_digest(world.terms, "AT", "CZ", ciphertext)
    next(e for e in body.encapsulations if e.receiver == "CZ").ciphertext_digest = digest

    def forge(content: RequestBody) -> None:
        message = content.confirm.encapsulations[0]
        message.CopyFrom(with_body(message, serialise(body), SigningKey.generate()))

    honest = world.coordinator.confirm_request("CZ")
    request = altered_request(honest, forge, parts=[ciphertext, *parts_of(honest, 1088)[1:]])
    with refused(world.countries["CZ"], ReasonCode.NOT_AUTHENTIC, naming="AT"):
        world.countries["CZ"].confirm(request)
    for country in ("AT", "BE"):
        world.exchange("confirm", country)
    world.coordinator._macs["CZ"] = {"AT": os.urandom(32), "BE": os.urandom(32)}
    liar = LyingCoordinator(world)
    round_ = liar.begin()
    for country in ("AT", "BE"):
        with refused(world.countries[country], ReasonCode.NOT_AUTHENTIC, naming="CZ"):
            liar.contribute(round_, country)
    with refused(world.countries["CZ"], ReasonCode.STALE):
        liar.contribute(round_, "CZ")
    assert liar.adversary_state.contributors() == set()


# ---- rosters, models, studies, rounds and runs


def test_two_rosters_open_nothing() -> None:
    """AT and BE get requests of a run of three, which the documents do not describe."""
    world = ProtocolWorld.of(4, colluding=0, honest=2)
    smaller = coordinator_of(terms_of(3, colluding=0, honest=2))
    for country in ("AT", "BE"):
        with refused(world.countries[country], ReasonCode.STALE):
            world.countries[country].bundle(smaller.bundle_request(country))
    liar = LyingCoordinator(ProtocolWorld.ready(4, colluding=0, honest=2))
    round_ = liar.contributed(without=("AT", "BE"))
    assert liar.press(round_) == ()


@pytest.mark.parametrize("first", [1, 2, 3])
def test_two_models_open_one_set_at_most(first: int) -> None:
    """Some honest countries see one model, the others another; the colluder works with both."""
    liar = five()
    rounds = [liar.begin(1, model) for model in (b"one", b"other")]
    for country in liar.honest:
        liar.contribute(rounds[liar.honest.index(country) >= first], country)
    for round_ in rounds:
        liar.contribute(round_, "EE")
    parts = [liar.honest[:first], liar.honest[first:]]
    assert [liar.opens(round_) for round_ in rounds] == [(), ()]
    for round_, part in zip(rounds, parts, strict=True):
        if len(part) >= 3:
            liar.agree_all(round_, (*part, "EE"))
    pressed = [liar.press(round_) for round_ in rounds]
    assert pressed == [(part,) if len(part) >= 3 else () for part in parts]


def test_a_replayed_round_gives_no_second_vector() -> None:
    liar = five()
    round_ = liar.contributed()
    before = dict(liar.adversary_state.contributions(round_.terms.context))
    for number, model in ((1, MODEL), (1, b"another model")):
        for restarted in (False, True):
            if restarted:
                liar.world.restart("AT")
            with refused(liar.world.countries["AT"], ReasonCode.STALE):
                liar.contribute(liar.begin(number, model), "AT")
    assert liar.adversary_state.contributions(round_.terms.context) == before
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)
    with refused(liar.world.countries["AT"], ReasonCode.STALE):
        liar.contribute(liar.begin(1), "AT")


def test_a_replayed_run_opens_nothing() -> None:
    """Replay every request of a finished run to countries that are in another run."""
    past, liar = LyingCoordinator(ProtocolWorld.ready(5, honest=2, run_id=bytes(16))), five()
    old = past.contributed()
    round_ = liar.contributed()
    run = liar.world.countries["AT"]
    for ask, request in (
        (run.agree, past.agree_request(old, ROSTER[:4])),
        (run.answer, past.answer_request(old, "AT", ROSTER)),
        (run.answer, past.answer_request(old, "AT", ROSTER[:4])),
    ):
        with refused(run, ReasonCode.STALE):
            ask(request)
    with refused(run, ReasonCode.STALE):
        run.contribute(past.begin(2).contribute_request("AT"), ZEROS, ZEROS)
    assert liar.opens(round_) == ()


def test_a_shrunk_roster_opens_nothing() -> None:
    """A country is removed from the answer request, its parts, and the signatures on the set."""
    liar = five()
    round_ = liar.contributed()
    for size in (1, 2, 3, 4):
        with refused(liar.world.countries["AT"], ReasonCode.ROSTER):
            liar.answer(round_, "AT", ROSTER[:size])
    assert liar.opens(round_) == ()
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"study": "sha256:" + "6" * 64},
        {"honest": 3},
        {"colluding": 0},
        {"task_kind": "stats/count"},
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_study_changed_between_phases_opens_nothing(changes: dict[str, object]) -> None:
    """A round begins under one study or agreement; the liar continues it under another."""
    terms = {"colluding": 1, "honest": 2}
    liar = five()
    other = LyingCoordinator(ProtocolWorld.ready(5, **{**terms, **changes}), ("EE",))
    round_, foreign = liar.contributed(), other.contributed()
    run = liar.world.countries["AT"]
    with refused(run, ReasonCode.STALE):
        run.agree(other.agree_request(foreign, ROSTER[:4]))
    with refused(run, ReasonCode.STALE):
        run.answer(other.answer_request(foreign, "AT", ROSTER))
    changed = view_of("AT", terms_of(5, **{**terms, **changes}))
    with pytest.raises(Refusal) as refusal:
        CountryRun.from_bytes(run.to_bytes(), changed)
    assert refusal.value.code is ReasonCode.STALE
    assert liar.opens(round_) == ()


def test_two_rounds_share_no_mask_and_no_value() -> None:
    """The roster's sum opens, then one without DK, and no difference of the two is exact."""
    liar = five()
    first = liar.contributed(1)
    liar.answer_all(first, ROSTER)
    second = liar.contributed(2, without=("DK",))
    left = ("AT", "BE", "CZ", "EE")
    liar.agree_all(second, left)
    liar.answer_all(second, left)
    assert liar.opens(first) == (("AT", "BE", "CZ", "DK"),)
    assert liar.opens(second) == (("AT", "BE", "CZ"),)
    words = [
        liar.adversary_state.contributions(round_.terms.context)["AT"].words
        for round_ in (first, second)
    ]
    assert not set(np.frombuffer(words[0], np.uint64)) & set(np.frombuffer(words[1], np.uint64))


# ---- malformed parts ----------------------


@pytest.mark.parametrize(
    "model",
    [
        np.full(5, np.nan).tobytes(),
        np.full(5, np.inf).tobytes(),
        np.full(5, -1e308).tobytes(),
        np.full(5, 2**63 - 1).tobytes()[:-3],
        b"",
    ],
    ids=["not-a-number", "infinite", "huge-and-negative", "truncated", "empty"],
)
def test_any_model_opens_the_sum_of_all_and_no_part_of_it(model: bytes) -> None:
    """The task checks whether the model is usable; the liar shows it to all or to none."""
    liar = five()
    round_ = liar.contributed(1, model)
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)


SETTINGS = [(n, c) for n in range(2, 7) for c in range(n - 1)]


@pytest.mark.parametrize(("size", "colluding"), SETTINGS)
def test_colluders_need_as_many_answers_as_the_threshold_says(size: int, colluding: int) -> None:
    world = ProtocolWorld.ready(size, colluding=colluding, honest=2)
    liar = LyingCoordinator(world, world.terms.roster[size - colluding :])
    round_ = liar.contributed()
    for index, country in enumerate(liar.honest):
        enough = index + colluding >= world.terms.threshold
        assert liar.safe(round_) == ((liar.honest,) if enough else ())
        liar.answer(round_, country, world.terms.roster)
    assert liar.safe(round_) == (liar.honest,)
    assert world.terms.threshold > colluding + (size - colluding) // 2


POINTS = ["contributed", "agreed", "answered"]


@pytest.mark.parametrize("point", POINTS)
def test_a_country_killed_at_any_point_opens_nothing_to_the_liar(point: str) -> None:
    """AT is killed and continues from its stored state; or it never comes back."""
    for returns in (True, False):
        liar = five()
        round_ = liar.contributed()
        left = ("AT", "BE", "CZ", "EE")
        steps: dict[str, Callable[[CoordinatorRound, tuple[str, ...]], None]] = {
            "agreed": liar.agree_all,
            "answered": liar.answer_all,
        }
        for reached in POINTS[1 : POINTS.index(point) + 1]:
            steps[reached](round_, left)
        liar.world.restart("AT")
        before = liar.safe(round_)
        assert before == ((("AT", "BE", "CZ"),) if point == "answered" else ())
        if returns:
            liar.press(round_)
        else:
            for country in ("BE", "CZ", "DK"):
                for chosen in (left, ROSTER, ROSTER[1:]):
                    for ask in (liar.agree, liar.answer):
                        with suppress(Refusal):
                            ask(round_, country, chosen)
            liar.safe(round_)


def garbled(reply: bytes) -> Reply:
    """Return a contribution in which only the signature is right."""
    other = Reply.FromString(reply)
    contribution = other.contribution
    other.words, contribution.commitments = (
        os.urandom(len(other.words)),
        os.urandom(len(contribution.commitments)),
    )
    contribution.shares = os.urandom(len(contribution.shares))
    contribution.head.CopyFrom(
        with_body(contribution.head, contribution.head.body, IDENTITIES[contribution.head.sender])
    )
    return other


@pytest.mark.parametrize("colluding", [1, 2])
def test_garbage_of_colluders_opens_nothing_in_addition(colluding: int) -> None:
    liar = five(colluding)
    round_ = liar.begin()
    for country in liar.honest:
        liar.contribute(round_, country)
    for country in liar.colluders:
        reply = liar.contribute(round_, country)
        liar.adversary_state.contributions(round_.terms.context)[country].CopyFrom(garbled(reply))
    assert liar.opens(round_) == ()
    for country in liar.honest:
        liar.answer(round_, country, ROSTER)
    assert liar.safe(round_) == (liar.honest,)
