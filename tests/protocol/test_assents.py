"""A lying coordinator that shows false signatures, sets, heads and shares.

Every test uses real countries. It checks what the liar could open of the round with everything it
has (`tests.support.adversary_state`), and makes the liar ask every country for more at the end.
"""

import os
from collections.abc import Callable

import pytest

from keys.identity import SigningKey
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.country_round import NOTHING
from protocols.private_sum.messages import SEALED_BYTES
from protocols.proto.round_pb2 import (
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    Answer,
    ContributionHead,
    Reply,
    Signed,
)
from protocols.wire.signed_message import COORDINATOR, serialise
from tests.support.lying_coordinator import (
    ROSTER,
    WITHOUT_DK,
    WITHOUT_EE,
    LyingCoordinator,
    assent,
    five,
)
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ProtocolWorld,
    altered_request,
    parts_of,
    refused,
    state_of,
    with_body,
    with_head,
)

# ---- signatures other than those of t members on exactly this set

Shown = Callable[[LyingCoordinator, CoordinatorRound], list[Signed]]


def signed_by(*signers: str, over: tuple[str, ...] = WITHOUT_EE, **claims: object) -> Shown:
    return lambda liar, round_: [assent(round_, country, over, **claims) for country in signers]


def forged(liar: LyingCoordinator, round_: CoordinatorRound) -> list[Signed]:
    assents = signed_by(*WITHOUT_EE)(liar, round_)
    return [*assents[:3], with_body(assents[3], assents[3].body, SigningKey.generate())]


def of_a_next_round(liar: LyingCoordinator, round_: CoordinatorRound) -> list[Signed]:
    return signed_by(*WITHOUT_EE)(liar, liar.begin(2))


def of_another_model(liar: LyingCoordinator, round_: CoordinatorRound) -> list[Signed]:
    return signed_by(*WITHOUT_EE)(liar, liar.begin(1, b"another model"))


def of_another_run(liar: LyingCoordinator, round_: CoordinatorRound) -> list[Signed]:
    other = ProtocolWorld.ready(5, colluding=1, honest=2, run_id=bytes(16))
    return signed_by(*WITHOUT_EE)(liar, other.coordinator.begin_round(1, "train", MODEL))


def renumbered(liar: LyingCoordinator, round_: CoordinatorRound) -> list[Signed]:
    """Return signatures in this context whose body has the number of another round."""
    assents, other = signed_by(*WITHOUT_EE)(liar, round_), signed_by("DK")(liar, liar.begin(2))
    return [*assents[:3], with_body(assents[3], other[0].body, IDENTITIES["DK"])]


@pytest.mark.parametrize(
    ("make_assents", "code"),
    [
        (signed_by(), ReasonCode.ROSTER),
        (signed_by("AT", "BE", "CZ"), ReasonCode.ROSTER),
        (signed_by("AT", "BE", "CZ", "EE"), ReasonCode.ROSTER),
        (signed_by("AT", "BE", "CZ", "DK", "EE"), ReasonCode.ROSTER),
        (signed_by("AT", "BE", "CZ", "CZ"), ReasonCode.ROSTER),
        (signed_by("AT", "BE", "CZ", "DK", "DK"), ReasonCode.ROSTER),
        (signed_by("BE", "AT", "CZ", "DK"), ReasonCode.ROSTER),
        (signed_by(*WITHOUT_EE, over=WITHOUT_DK), ReasonCode.ROSTER),
        (signed_by(*WITHOUT_EE, over=ROSTER), ReasonCode.ROSTER),
        (signed_by(*WITHOUT_EE, phase=PHASE_ANSWER), ReasonCode.STALE),
        (signed_by(*WITHOUT_EE, phase=PHASE_CONTRIBUTE), ReasonCode.STALE),
        (signed_by(*WITHOUT_EE, receiver=COORDINATOR), ReasonCode.STALE),
        (forged, ReasonCode.NOT_AUTHENTIC),
        (of_a_next_round, ReasonCode.STALE),
        (of_another_model, ReasonCode.STALE),
        (of_another_run, ReasonCode.STALE),
        (renumbered, ReasonCode.ROSTER),
    ],
    ids=[
        *("none", "fewer-than-t", "a-stranger-to-the-set", "one-too-many", "one-twice"),
        *("t-and-one-twice", "unsorted", "over-another-set", "over-the-roster"),
        *("an-answer", "a-contribution", "to-the-coordinator", "forged", "of-a-next-round"),
        *("of-another-model", "of-another-run", "renumbered"),
    ],
)
def test_only_signatures_of_t_members_on_this_very_set_count(
    make_assents: Shown, code: ReasonCode
) -> None:
    """DK signs nothing, so that no sequence of requests has t signatures on this set."""
    liar = five()
    round_ = liar.contributed()
    assents = make_assents(liar, round_)
    for country in ("AT", "BE", "CZ"):
        liar.agree(round_, country, WITHOUT_EE)
        with refused(liar.world.countries[country], code):
            liar.answer(round_, country, WITHOUT_EE, assents)
    assert liar.opens(round_) == ()


def test_signatures_on_a_set_are_not_valid_in_the_next_round() -> None:
    liar = five()
    first = liar.contributed(1)
    liar.agree_all(first, WITHOUT_EE)
    old = liar.assents(first, WITHOUT_EE)
    second = liar.contributed(2)
    for country in WITHOUT_EE:
        with refused(liar.world.countries[country], ReasonCode.STALE):
            liar.answer(second, country, WITHOUT_EE, old)
        with refused(liar.world.countries[country], ReasonCode.STALE):
            liar.answer(first, country, WITHOUT_EE)
    assert liar.opens(first) == liar.opens(second) == ()
    assert liar.press(first) == ()
    assert liar.press(second) == (WITHOUT_EE,)


def test_the_roster_needs_no_signatures_and_extra_ones_do_no_harm() -> None:
    liar = five()
    round_ = liar.contributed()
    assents = signed_by(*WITHOUT_EE)(liar, round_)
    for country in ("AT", "BE", "CZ"):
        liar.answer(round_, country, ROSTER, assents)
    assert liar.press(round_) == (WITHOUT_EE,)


# ---- sets that must never be opened


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ((), "this country is not among them"),
        (("AT",), "a sum needs at least 4"),
        (("AT", "BE"), "a sum needs at least 4"),
        (("AT", "BE", "CZ"), "a sum needs at least 4"),
        (("BE", "CZ", "DK", "EE"), "this country is not among them"),
        (("AT", "BE", "CZ", "CZ"), "not a sorted list"),
        (("AT", "BE", "CZ", "DK", "DK", "EE"), "not a sorted list"),
        (("BE", "AT", "CZ", "DK"), "not a sorted list"),
        (("AT", "BE", "CZ", "DK", "XX"), "not a sorted list"),
        (("AT", "BE", "CZ", "FI"), "not a sorted list"),
        (("AT", "BE", "CZ", "DK", "EE", "FI"), "not a sorted list"),
        (("AT", "BE", "CZ", ""), "not a sorted list"),
    ],
    ids=lambda value: "-".join(value) or "none" if isinstance(value, tuple) else "",
)
def test_a_set_that_is_too_small_or_has_strangers_is_neither_signed_nor_answered(
    chosen: tuple[str, ...], why: str
) -> None:
    liar = five()
    round_ = liar.contributed()
    signers = sorted(set(chosen) & set(ROSTER))
    assents = [assent(round_, country, chosen) for country in signers]
    with refused(liar.world.countries["AT"], ReasonCode.ROSTER, naming=why[1:]):
        liar.agree(round_, "AT", chosen)
    with refused(liar.world.countries["AT"], ReasonCode.ROSTER, naming=why[1:]):
        liar.answer(round_, "AT", chosen, assents)
    assert liar.opens(round_) == ()


def test_the_roster_is_never_signed() -> None:
    """A signature on the roster counts for no smaller set, and would block a later one."""
    liar = five()
    round_ = liar.contributed()
    with refused(liar.world.countries["AT"], ReasonCode.ROSTER, naming="dropped out"):
        liar.agree(round_, "AT", ROSTER)
    assert liar.opens(round_) == ()


@pytest.mark.parametrize(
    ("terms", "smallest"),
    [
        ({"colluding": 0, "honest": 2}, 3),
        ({"colluding": 0, "honest": 4}, 4),
        ({"colluding": 1, "honest": 2}, 4),
        ({"colluding": 0, "honest": 2, "smallest_countries": 4}, 4),
        ({"colluding": 0, "honest": 2, "smallest_countries": 5}, 5),
        ({"colluding": 1, "honest": 4}, 5),
    ],
    ids=str,
)
def test_the_smallest_set_is_the_largest_of_h_plus_c_the_agreement_and_t(
    terms: dict[str, int], smallest: int
) -> None:
    liar = LyingCoordinator(ProtocolWorld.ready(5, **terms))
    for size in (2, 3, 4):
        number = size - 1
        round_, chosen = liar.contributed(number), ROSTER[:size]
        if size < smallest:
            with refused(
                liar.world.countries["AT"], ReasonCode.ROSTER, naming="a sum needs at least"
            ):
                liar.agree(round_, "AT", chosen)
            assert liar.opens(round_) == ()
        else:
            liar.agree_all(round_, chosen)
            liar.answer_all(round_, chosen)
            assert liar.opens(round_) == (chosen,)


def test_a_country_that_did_not_contribute_is_in_no_set() -> None:
    liar = five()
    round_ = liar.contributed(without=("DK",))
    with refused(liar.world.countries["DK"], ReasonCode.STALE):
        liar.agree(round_, "DK", WITHOUT_EE)
    for country in ("AT", "BE", "CZ"):
        liar.agree(round_, country, WITHOUT_EE)
    assents = signed_by(*WITHOUT_EE)(liar, round_)
    for country in ("AT", "BE", "CZ"):
        with refused(liar.world.countries[country], ReasonCode.ROSTER):
            liar.answer(round_, country, WITHOUT_EE, assents)
    assert liar.press(round_) == ()


# ---- substituted parts


def test_a_head_of_another_round_is_refused() -> None:
    liar = five()
    past = liar.contributed(1)
    round_ = liar.contributed(2)
    liar.agree_all(round_, WITHOUT_EE)
    old = liar.adversary_state.contributions(past.terms.context)["BE"].contribution.head
    request = with_head(liar.answer_request(round_, "AT", WITHOUT_EE), 1, lambda _: old)
    with refused(liar.world.countries["AT"], ReasonCode.STALE, naming="BE"):
        liar.world.countries["AT"].answer(request)
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)


@pytest.mark.parametrize("key", [IDENTITIES["EE"], SigningKey.generate()], ids=["member", "none"])
def test_a_head_in_the_name_of_another_country_is_refused_for_a_smaller_set(
    key: SigningKey,
) -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_EE)
    request = liar.answer_request(round_, "AT", WITHOUT_EE)
    forged_message = with_head(request, 1, lambda head: with_body(head, head.body, key))
    with refused(liar.world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        liar.world.countries["AT"].answer(forged_message)
    assert liar.opens(round_) == ()


def test_every_member_has_a_head_in_the_request() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_EE)
    run, honest = liar.world.countries["AT"], liar.answer_request(round_, "AT", WITHOUT_EE)
    for change in (
        lambda body: body.answer.heads.pop(),
        lambda body: body.answer.heads.append(body.answer.heads[0]),
        lambda body: body.answer.heads[0].CopyFrom(body.answer.heads[1]),
        lambda body: body.answer.heads.reverse(),
    ):
        with refused(run, ReasonCode.ROSTER):
            run.answer(altered_request(honest, change))
    assert liar.opens(round_) == ()


def test_every_member_has_a_share_beside_the_request() -> None:
    """Send no share, one too few, one too many, cut ones, and those of the roster instead of U."""
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_EE)
    run, honest = liar.world.countries["AT"], liar.answer_request(round_, "AT", WITHOUT_EE)
    sealed = parts_of(honest, SEALED_BYTES)
    assert len(sealed) == 3
    of_the_roster = parts_of(liar.answer_request(round_, "AT", ROSTER), SEALED_BYTES)
    for parts in (
        [],
        sealed[:2],
        [*sealed, sealed[0]],
        [*sealed, b"0"],
        [*sealed[:2], sealed[2][:-1]],
        of_the_roster,
    ):
        with refused(run, ReasonCode.ROSTER):
            run.answer(altered_request(honest, parts=parts))
    assert liar.opens(round_) == ()


def test_a_substituted_share_opens_for_nobody_and_reveals_nothing() -> None:
    """Send AT, instead of BE's share for AT: DK's for BE, one of the round before, random bytes."""
    liar = five()
    past = liar.contributed(1)
    round_ = liar.contributed(2)
    liar.agree_all(round_, WITHOUT_EE)

    def sealed(number: CoordinatorRound, owner: str, holder: str) -> bytes:
        return liar.adversary_state.sealed(number.terms.context, owner, holder)

    swapped = [sealed(round_, "DK", "BE"), sealed(past, "BE", "AT"), os.urandom(SEALED_BYTES)]
    run = liar.world.countries["AT"]
    open_round = state_of(run).open_round
    assert open_round is not None
    honest = liar.answer_request(round_, "AT", WITHOUT_EE)
    reply = run.answer(altered_request(honest, parts=swapped))
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert answer.shares == open_round.own_share + 3 * NOTHING
    assert list(answer.unopenable) == ["BE", "CZ", "DK"]
    liar.adversary_state.record(reply, WITHOUT_EE)
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)


def test_a_share_opens_only_with_the_seed_commitment_that_its_owner_signed() -> None:
    """EE signs a second head, for another seed, and the liar shows it to AT with the same share."""
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)

    def with_another_seed(head: Signed) -> Signed:
        content = ContributionHead.FromString(head.body)
        content.seed_commitment = os.urandom(32)
        return with_body(head, serialise(content), IDENTITIES["EE"])

    request = with_head(liar.answer_request(round_, "AT", WITHOUT_DK), 3, with_another_seed)
    reply = liar.world.countries["AT"].answer(request)
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert list(answer.unopenable) == ["EE"]
    assert answer.shares[-32:] == NOTHING
    liar.adversary_state.record(reply, WITHOUT_DK)
    assert liar.press(round_) == (("AT", "BE", "CZ"),)


# ---- requests of another phase or round


def test_a_request_of_the_other_phase_or_round_is_refused() -> None:
    liar = five()
    round_ = liar.contributed()
    run = liar.world.countries["AT"]
    for other in (liar.begin(2), liar.begin(1, b"another model")):
        with refused(run, ReasonCode.STALE):
            run.agree(liar.agree_request(other, WITHOUT_EE))
    honest = liar.agree_request(round_, WITHOUT_EE)
    with refused(run, ReasonCode.MALFORMED):
        run.agree(altered_request(honest, phase=PHASE_ANSWER))
    for receiver in ("AT", "BE", COORDINATOR, ""):
        with refused(run, ReasonCode.STALE):
            run.agree(altered_request(honest, receiver=receiver))
    with refused(run, ReasonCode.MALFORMED):
        run.agree(
            altered_request(
                honest, parts=[liar.adversary_state.sealed(round_.terms.context, "BE", "AT")]
            )
        )
    with refused(run, ReasonCode.NOT_AUTHENTIC):
        run.agree(altered_request(honest, key=IDENTITIES["EE"]))
    with refused(run, ReasonCode.STALE):
        run.agree(altered_request(honest, key=IDENTITIES["EE"], sender="EE"))
    assert liar.opens(round_) == ()
