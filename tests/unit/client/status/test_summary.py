"""The sentence about what a node does, and the numbers of its budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.status.summary import (
    LinkStatus,
    StatusSummary,
    ledger_status,
)
from governance.budget.ledger import LedgerView
from governance.budget.period import period_of
from tests.support.documents import NOW, agreement


def summary(**changes: object) -> StatusSummary:
    plain: dict[str, object] = {
        "paused": None,
        "link": LinkStatus(connected=True),
        "documents": "",
        "records": "",
        "running": [],
        "undecided": [],
    }
    return StatusSummary(**plain | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "idle, connected"),
        ({"paused": "audit"}, "paused: audit"),
        ({"paused": ""}, "paused: by its operator"),
        ({"link": LinkStatus()}, "waiting for the coordinator: connecting"),
        (
            {"link": LinkStatus(fault="The exchange does not answer")},
            "waiting for the coordinator: The exchange does not answer",
        ),
        ({"documents": "they have expired"}, "waiting for documents: they have expired"),
        ({"records": "unreadable"}, "waiting for records: unreadable"),
        ({"running": ["heart"]}, "taking part in study heart"),
        ({"quiet": 1}, "idle, connected; 1 earlier run is still open on this node"),
        ({"quiet": 3}, "idle, connected; 3 earlier runs are still open on this node"),
        ({"quiet": 3, "running": ["heart"]}, "taking part in study heart"),
        ({"undecided": ["a", "b"]}, "waiting for a permit for study a, b"),
    ],
)
def test_the_sentence_says_what_the_node_waits_for(
    changes: dict[str, object], sentence: str
) -> None:
    assert summary(**changes).sentence() == sentence


def test_the_first_obstacle_is_named() -> None:
    everything = {
        "paused": "audit",
        "link": LinkStatus(),
        "documents": "d",
        "records": "r",
        "running": ["s"],
        "undecided": ["t"],
    }
    order = ["paused", "the coordinator", "documents", "records", "taking part", "a permit"]
    lifted: dict[str, object] = {}
    good = {"paused": None, "link": LinkStatus(connected=True), "documents": "", "records": ""}
    for name, expected in zip(everything, order, strict=True):
        assert expected in summary(**everything | lifted).sentence()
        lifted[name] = good.get(name, [])
    assert summary(**everything | lifted).sentence() == "idle, connected"


BUDGET = agreement().budget[0]


def view(spent: int, lifetime: int = 0) -> LedgerView:
    period = period_of(NOW, BUDGET.period_days, NOW)
    return LedgerView("patients", period, BUDGET.order, 2_114_831, spent, lifetime or spent)


def test_an_unspent_budget_is_shown_as_nothing_spent_and_all_left() -> None:
    ledger = ledger_status(view(0), BUDGET)
    assert (ledger.epsilon_spent, ledger.epsilon_left) == (0.0, 3.0)
    assert (ledger.share_spent, ledger.left_micro) == (0.0, 2_114_831)


def test_a_spent_budget_is_shown_as_all_spent_and_nothing_left() -> None:
    ledger = ledger_status(view(2_114_831), BUDGET)
    assert ledger.epsilon_spent == pytest.approx(3.0, abs=1e-5)
    assert ledger.epsilon_left == pytest.approx(0.0, abs=1e-5)
    assert ledger.share_spent == 1.0


@given(st.integers(1, 2_114_831))
def test_the_remaining_budget_is_never_shown_too_large(spent: int) -> None:
    ledger = ledger_status(view(spent), BUDGET)
    assert 0 < ledger.epsilon_spent <= BUDGET.epsilon + 1e-6
    assert ledger.epsilon_left <= BUDGET.epsilon - ledger.epsilon_spent + 1e-9
    assert ledger.left_micro == 2_114_831 - spent


def test_other_periods_are_shown_as_lifetime() -> None:
    ledger = ledger_status(view(0, 5_000_000), BUDGET)
    assert ledger.epsilon_spent == 0
    assert ledger.epsilon_lifetime > 3
