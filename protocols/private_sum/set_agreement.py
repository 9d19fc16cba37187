"""Which countries' sum a country lets be opened: the roster's, or one smaller set's, agreed on.

When a country drops out, what the others sent opens only with the keys of their masks with it, and
whoever names the set that remains could name different ones to different countries. So a country

1. opens a set only of at least max(h + c, t) countries of the roster, itself among them;
2. signs at most one smaller set a round, and then answers for no other set, the roster included;
3. answers for a smaller set only when it sees the signatures of at least t of its members on it;
4. answers once a round, and signs nothing afterwards.

Why no two sets open, t being more than (n + c)/2: two sets of t signers, or t signers and the t
whose answers open the roster's sum, have more than c countries in common, one of them honest; by
2 and 4 that one served one of the two only. (Bonawitz et al. 2017, Section 6, where every round
pays for this.)
"""

from collections.abc import Sequence

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import RunTerms
from protocols.private_sum.country_state import OpenRound
from protocols.private_sum.country_view import CountryView
from protocols.proto.round_pb2 import PHASE_AGREE, Assent, Signed
from protocols.wire.signed_message import ROSTER, open_signed, serialise


def assent_body(round_number: int, chosen: Sequence[str]) -> bytes:
    """Return what a country signs to let a smaller set be opened."""
    return serialise(Assent(round=round_number, countries=chosen))


def require_set(terms: RunTerms, country: str, named: Sequence[str]) -> tuple[str, ...]:
    """Return the set that a request names, when it may be opened with this country in it.

    Raises Refusal ROSTER.
    """
    chosen = tuple(named)
    if list(chosen) != sorted(set(chosen) & set(terms.roster)):
        raise _other_set("it is not a sorted list of different countries of the run")
    if country not in chosen:
        raise _other_set("this country is not among them")
    if len(chosen) < terms.smallest_set:
        raise _other_set(
            f"{len(chosen)} of {len(terms.roster)} countries are fewer than the "
            f"{terms.smallest_set} that a sum is opened over"
        )
    return chosen


def require_unsigned(terms: RunTerms, opened: OpenRound, chosen: tuple[str, ...]) -> None:
    """Return when the country may sign `chosen`. Raises Refusal ROSTER or STALE."""
    if chosen == terms.roster:
        raise _other_set("nobody dropped out, so that there is nothing to agree on")
    if opened.agreed:
        raise Refusal(
            ReasonCode.STALE,
            "This country has agreed on a set of countries in this round",
            why=f"it signed for {', '.join(opened.agreed)}, and signs once a round",
        )


def require_agreed(
    view: CountryView, opened: OpenRound, chosen: tuple[str, ...], assents: Sequence[Signed]
) -> None:
    """Return when the country may answer for `chosen`.

    Raises Refusal: ROSTER where it signed another set, or too few of `assents` are of members,
    and what `open_signed` does where one of them is no assent to exactly this set.
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
        raise _other_set(f"{message.sender} agreed on another one")


def _other_set(why: str) -> Refusal:
    return Refusal(
        ReasonCode.ROSTER,
        "The sum of these countries is not opened",
        why=why[:1].upper() + why[1:],
    )
