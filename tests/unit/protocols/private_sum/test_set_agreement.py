"""A country opens the sum of the roster, or of one smaller set that enough members signed."""

from collections.abc import Callable

import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.country_state import OpenRound
from protocols.private_sum.set_agreement import (
    assent_body,
    require_agreed,
    require_set,
    require_unsigned,
)
from protocols.proto.round_pb2 import PHASE_AGREE, Assent, Signed
from protocols.wire.signed_message import ROSTER, sign_message
from tests.support.protocol_world import IDENTITIES, NAMES, terms_of, view_of

TERMS = terms_of(6, honest=2)
FIVE = NAMES[:5]
"""A set of six countries; t is 4."""
VIEW = view_of(NAMES[0], TERMS)
CONTEXT = bytes(range(32))


def open_round(agreed: tuple[str, ...] = ()) -> OpenRound:
    return OpenRound(
        context=CONTEXT, round_number=1, head=b"", own_share=b"", seals={}, masks={}, agreed=agreed
    )


def assent(country: str, chosen: tuple[str, ...] = FIVE, number: int = 1) -> Signed:
    return sign_message(
        IDENTITIES[country].sign,
        body=assent_body(number, chosen),
        phase=PHASE_AGREE,
        context=CONTEXT,
        sender=country,
        receiver=ROSTER,
    )


def assents(*countries: str) -> list[Signed]:
    return [assent(country) for country in countries]


def refuses(check: Callable[[], object], code: ReasonCode = ReasonCode.ROSTER) -> str:
    with pytest.raises(Refusal) as refused:
        check()
    assert refused.value.code == code
    return refused.value.why


def test_an_assent_names_round_and_countries() -> None:
    parsed = Assent.FromString(assent_body(3, FIVE))
    assert (parsed.round, tuple(parsed.countries)) == (3, FIVE)


def test_a_large_enough_sorted_set_with_this_country_may_be_opened() -> None:
    assert require_set(TERMS, NAMES[0], TERMS.roster) == TERMS.roster
    assert require_set(TERMS, NAMES[0], FIVE) == FIVE


@pytest.mark.parametrize(
    ("named", "why"),
    [
        (tuple(reversed(FIVE)), "sorted list"),
        ((*FIVE, FIVE[-1]), "sorted list"),
        ((*FIVE[:4], "ZZ"), "sorted list"),
        (NAMES[1:6], "this country is not among them"),
        (NAMES[: TERMS.smallest_set - 1], "a sum needs at least"),
        ((), "this country is not among them"),
    ],
)
def test_other_sets_may_not_be_opened(named: tuple[str, ...], why: str) -> None:
    assert why in refuses(lambda: require_set(TERMS, NAMES[0], named)).lower()


def test_a_country_signs_one_smaller_set_a_round() -> None:
    require_unsigned(TERMS, open_round(), FIVE)
    refuses(lambda: require_unsigned(TERMS, open_round(), TERMS.roster))
    refuses(lambda: require_unsigned(TERMS, open_round(FIVE), FIVE), ReasonCode.STALE)
    refuses(lambda: require_unsigned(TERMS, open_round(FIVE), NAMES[:4]), ReasonCode.STALE)


def test_the_roster_needs_no_signatures_unless_a_smaller_set_was_signed() -> None:
    require_agreed(VIEW, open_round(), TERMS.roster, [])
    refuses(lambda: require_agreed(VIEW, open_round(FIVE), TERMS.roster, []))


def test_a_smaller_set_needs_t_of_its_members() -> None:
    enough = assents(*FIVE[: TERMS.threshold])
    require_agreed(VIEW, open_round(FIVE), FIVE, enough)
    require_agreed(VIEW, open_round(), FIVE, assents(*FIVE))
    refuses(lambda: require_agreed(VIEW, open_round(FIVE), FIVE, enough[:-1]))


def test_signatures_count_once_in_order_and_of_members_only() -> None:
    enough = assents(*FIVE[: TERMS.threshold])
    for wrong in (
        [*enough, enough[-1]],
        list(reversed(enough)),
        [*enough[:-1], assent(NAMES[5])],
    ):
        refuses(lambda wrong=wrong: require_agreed(VIEW, open_round(FIVE), FIVE, wrong))  # type: ignore[misc]


@pytest.mark.parametrize("other", [assent(FIVE[1], NAMES[:4]), assent(FIVE[1], FIVE, number=2)])
def test_a_signature_on_another_set_or_round_is_refused(other: Signed) -> None:
    signed = [assent(FIVE[0]), other, *assents(*FIVE[2:])]
    why = refuses(lambda: require_agreed(VIEW, open_round(FIVE), FIVE, signed))
    assert FIVE[1] in why


def test_a_forged_signature_is_refused() -> None:
    forged = assent(FIVE[1])
    forged.signature = assent(FIVE[2]).signature
    signed = [assent(FIVE[0]), forged, *assents(*FIVE[2:])]
    refuses(lambda: require_agreed(VIEW, open_round(FIVE), FIVE, signed), ReasonCode.NOT_AUTHENTIC)
