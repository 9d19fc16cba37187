"""One node, one person register, whatever a study calls it."""

from pathlib import Path

import pytest

from client.border.person_register import CLAUSE, node_register, require_node_register
from governance.budget.ledger import Ledger
from protocols.errors import ReasonCode, Refusal
from tests.support.documents import agreement
from tests.support.ledger_and_log import (
    NOW,
    STUDY,
    node_state,
    release,
    run_id,
    terms,
)

ONE = {"register": "patients", "period_days": 365, "epsilon": 3.0, "delta": 1e-4, "order": 8}
TWO = [ONE, {**ONE, "register": "insured"}]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(node_state(tmp_path))


def charge(ledger: Ledger, register: str) -> None:
    ledger.reserve(
        terms(10**9, register=register),
        study=STUDY,
        run=run_id(1),
        mechanisms=[release()],
        now=NOW,
    )


def test_a_declared_register_is_that_of_the_node(ledger: Ledger) -> None:
    assert node_register("insured", ledger, agreement(budget=TWO)) == "insured"


def test_the_only_register_of_the_agreement_is_that_of_the_node(ledger: Ledger) -> None:
    assert node_register(None, ledger, agreement()) == "patients"


def test_none_of_several_registers_is_guessed(ledger: Ledger) -> None:
    assert node_register(None, ledger, agreement(budget=TWO)) is None


def test_the_register_that_was_charged_before_stays_that_of_the_node(ledger: Ledger) -> None:
    """An amended agreement that renames the register opens no new budget."""
    charge(ledger, "insured")
    assert node_register(None, ledger, agreement(budget=TWO)) == "insured"
    assert node_register(None, ledger, agreement()) == "insured"


def test_the_register_of_the_node_is_accepted() -> None:
    require_node_register("patients", "patients")


@pytest.mark.parametrize("own", ["insured", None])
def test_any_other_register_is_refused_with_the_clause(own: str | None) -> None:
    with pytest.raises(Refusal) as refusal:
        require_node_register(own, "patients")
    assert refusal.value.code is ReasonCode.POLICY
    assert refusal.value.clause == CLAUSE
    assert refusal.value.fix
