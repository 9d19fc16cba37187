"""The state machines of the private sum fail if any defence is removed."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import country_round, ratchet
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.country_state import CountryState, OpenRound
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.messages import Request
from protocols.private_sum.set_agreement import require_agreed
from protocols.proto.round_pb2 import Signed
from tests.property.test_private_sum_liar_machine import Lying
from tests.property.test_private_sum_machine import Lossy
from tests.support.durable_parties import DurableCountry

answered = country_round.answer


def nothing(*_: Any) -> None:
    """Do nothing, in place of a removed check."""


def answered_and_open(
    view: CountryView, state: CountryState, request: Request
) -> country_round.Step:
    return state, answered(view, state, request)[1]


def agreed_on_any(
    view: CountryView, round_: OpenRound, chosen: tuple[str, ...], assents: Sequence[Signed]
) -> None:
    unsigned = round_.model_copy(update={"agreed": ()})
    require_agreed(view, unsigned, chosen, assents)


def agreed_by_nobody(
    view: CountryView, round_: OpenRound, chosen: tuple[str, ...], assents: Sequence[Signed]
) -> None:
    if round_.agreed and round_.agreed != chosen:
        raise Refusal(ReasonCode.ROSTER, "Another set was signed")


def same_link(link: bytes, *_: Any) -> bytes:
    return link


def stores_nothing(station: DurableCountry) -> None:
    """Send replies while the stored state stays as it was."""


def one_lower(terms: RunTerms) -> int:
    return (len(terms.roster) + terms.colluding) // 2


def only_t(terms: RunTerms) -> int:
    return terms.threshold


def forgets(round_: CoordinatorRound) -> tuple[str, ...]:
    return round_.contributed


BROKEN: dict[str, tuple[type, object, str, Callable[..., Any] | property]] = {
    "a country signs any number of sets": (Lying, country_round, "require_unsigned", nothing),
    "nobody looks at signatures": (Lying, country_round, "require_agreed", agreed_by_nobody),
    "a country answers for a set it did not sign": (
        Lying,
        country_round,
        "require_agreed",
        agreed_on_any,
    ),
    "h + c does not count": (Lying, RunTerms, "smallest_set", property(only_t)),
    "t is one lower": (Lying, RunTerms, "threshold", property(one_lower)),
    "an answered round stays open": (Lossy, country_round, "answer", answered_and_open),
    "a country contributes again": (Lossy, country_round, "_require_turn", nothing),
    "a reply leaves before the state is kept": (Lossy, DurableCountry, "store", stores_nothing),
    "the pair chains stand still": (Lossy, ratchet, "advance", same_link),
    "the coordinator accepts late contributions": (
        Lossy,
        CoordinatorRound,
        "_require_awaited",
        nothing,
    ),
    "the coordinator closes a round without contributions": (
        Lossy,
        CoordinatorRound,
        "close",
        forgets,
    ),
    "the coordinator leaves masks in": (Lossy, CoordinatorRound, "_unmask_outside", nothing),
    "a stray reply closes a round": (Lossy, CoordinatorRound, "_named", CoordinatorRound._member),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", list(BROKEN))
def test_a_state_machine_fails_without_the_defence(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, where, name, instead = BROKEN[broken]
    monkeypatch.setattr(where, name, instead)
    unhurried = settings(
        machine.TestCase.settings,  # type: ignore[attr-defined]
        max_examples=2000,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=unhurried)
