"""Rules for the set of countries whose sum may be opened: the roster, or one agreed smaller set.

If a country drops out, the contributions of the others open only with the keys of their masks with
it. The coordinator names the remaining set, and could name different sets to different countries.
So a country

1. helps to open only a set of at least max(h + c, t) countries of the roster, and of at least as
   many as the agreement and its own permit demand, itself included;
2. signs at most one smaller set a round, and then answers for no other set, the roster included;
3. answers for a smaller set only if it sees the signatures of at least t of its members on it;
4. answers once a round, and signs nothing afterwards.

Why no two sets open, as t is more than (n + c)/2: two groups of t signers, or t signers and the t
countries whose answers open the roster's sum, have more than c countries in common, so at least one
honest one. By 2 and 4 that country took part in only one of the two. (In Bonawitz et al. 2017,
Section 6, every round needs such signatures.)
"""

from collections.abc import Sequence

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import RunTerms
from protocols.private_sum.country_state import OpenRound
from protocols.private_sum.country_view import CountryView
from protocols.proto.round_pb2 import PHASE_AGREE, Assent, Signed
from protocols.wire.signed_message import ROSTER, open_signed, serialise


def assent_body(round_number: int, chosen: Sequence[str]) -> bytes:
    """Return the body that a country signs to agree to a smaller set."""
    return serialise(Assent(round=round_number, countries=chosen))


def require_set(terms: RunTerms, country: str, named: Sequence[str]) -> tuple[str, ...]:
    """Check that the set in a request may be opened with this country's help, and return it.

    Raises Refusal ROSTER.
    """
    chosen = tuple(named)
    if list(chosen) != sorted(set(chosen) & set(terms.roster)):
        raise _other_set("it is not a sorted list of different countries of the run")
    if country not in chosen:
        raise _other_set("this country is not among them")
    if len(chosen) < terms.smallest_set:
        raise _other_set(
            f"it has {len(chosen)} of {len(terms.roster)} countries, and a sum needs at least "
            f"{terms.smallest_set}"
        )
    return chosen


def require_unsigned(terms: RunTerms, opened: OpenRound, chosen: tuple[str, ...]) -> None:
    """Check that the country may sign `chosen`. Raises Refusal ROSTER or STALE."""
    if chosen == terms.roster:
        raise _other_set("no country dropped out, so there is nothing to agree on")
    if opened.agreed:
        raise Refusal(
            ReasonCode.STALE,
            "This country has already agreed on a set of countries in this round",
            why=f"it signed for {', '.join(opened.agreed)}, and signs once a round",
        )


def require_agreed(
    view: CountryView, opened: OpenRound, chosen: tuple[str, ...], assents: Sequence[Signed]
) -> None:
    """Check that the country may answer for `chosen`.

    Raises Refusal: ROSTER if it signed another set, if too few of `assents` are of members, or if
    one is for another set; and as `open_signed` does if one is not authentic.
    """
    if opened.agreed and opened.agreed != chosen:
        raise _other_set(f"this country agreed on {', '.join(opened.agreed)}")
    if chosen == view.terms.roster:
        return
    signers = [message.sender for message in assents]
    members = sorted(set(signers) & set(chosen))
    if signers != members or len(members) < view.terms.threshold:
        raise _other_set(f"fewer than {view.terms.threshold} of them have agreed on it")
    for message in assents:
        _require_assent(view, opened, chosen, message)


def _require_assent(
    view: CountryView, opened: OpenRound, chosen: tuple[str, ...], message: Signed
) -> None:
    body = open_signed(
        message,
        view.peers[message.sender],
        phase=PHASE_AGREE,
        context=opened.context,
        sender=message.sender,
        receiver=ROSTER,
    )
    if body != assent_body(opened.round_number, chosen):
        raise _other_set(f"{message.sender} agreed on another set")


def _other_set(why: str) -> Refusal:
    return Refusal(
        ReasonCode.ROSTER,
        "The sum of these countries may not be opened",
        why=why,
    )
