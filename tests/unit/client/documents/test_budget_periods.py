"""An amendment with backdated budget periods opens no new budget early."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from client.documents.budget_periods import BudgetPeriods
from governance.budget.period import period_of
from governance.documents.agreement import Agreement
from protocols.errors import ReasonCode
from tests.support.documents import DAY, NOW, agreement, agreement_fields
from tests.support.node_federation import NodeFederation, code_of, last_refusal

YEAR, HOUR = 365, timedelta(hours=1)
AGREED = agreement()


def dated(effective: datetime, days: int = YEAR) -> Agreement:
    budget = agreement_fields()["budget"][0] | {"period_days": days}
    return AGREED.model_copy(
        update={"effective": effective, "budget": agreement(budget=[budget]).budget}
    )


def test_the_first_periods_count_from_the_beginning() -> None:
    assert BudgetPeriods().with_agreement(AGREED, NOW).since("patients") is None
    assert BudgetPeriods().since("patients") is None


@pytest.mark.parametrize("other", [dated(NOW - 370 * DAY), dated(AGREED.effective, 200)])
def test_changed_periods_count_from_the_time_they_were_seen(other: Agreement) -> None:
    periods = BudgetPeriods().with_agreement(AGREED, NOW).with_agreement(other, NOW + DAY)
    assert periods.since("patients") == NOW + DAY
    assert periods.with_agreement(other, NOW + 9 * DAY) == periods


def test_the_same_terms_signed_again_change_no_period() -> None:
    periods = BudgetPeriods().with_agreement(AGREED, NOW)
    again = AGREED.model_copy(update={"title": "The same terms of budget"})
    assert periods.with_agreement(again, NOW + DAY).since("patients") is None


def test_a_register_that_returns_to_the_agreement_is_not_new() -> None:
    periods = BudgetPeriods().with_agreement(AGREED, NOW)
    without = AGREED.model_copy(update={"budget": ()})
    back = periods.with_agreement(without, NOW + DAY).with_agreement(
        dated(NOW - 370 * DAY), NOW + 2 * DAY
    )
    assert back.since("patients") == NOW + 2 * DAY


@pytest.mark.parametrize("behind", [timedelta(hours=1), 30 * DAY, 364 * DAY])
def test_a_boundary_before_the_periods_were_seen_resets_no_budget(behind: timedelta) -> None:
    effective = NOW - YEAR * DAY - behind
    for days in (0, 1, 2, 200, YEAR - 1):
        now = NOW + days * DAY
        assert period_of(effective, YEAR, now, known=NOW).since == now - YEAR * DAY
    after = period_of(effective, YEAR, NOW + (YEAR + 1) * DAY, known=NOW)
    assert after.since == after.start


def test_the_gate_still_counts_charges_after_a_backdated_amendment(tmp_path: Path) -> None:
    """The countries backdate the agreement by a year and an hour, just after a charge."""
    budget = agreement_fields()["budget"][0] | {"epsilon": 1.135}
    federation = NodeFederation(tmp_path / "federation", changes={"budget": [budget]})
    federation.sync()
    study = federation.approved(id="the-first")
    federation.ready(study).sum(1, "histogram")
    documents = federation.documents
    spent = federation.nodes["DK"].parts.ledger.entries()[0].created
    documents.now = spent + timedelta(hours=2)
    amended = documents.agreed.model_copy(update={"effective": documents.now - (YEAR * DAY + HOUR)})
    documents.store.draft(amended, documents.now)
    documents.sign("EE", "NO", "PT")
    documents.publish()
    documents.agreed = amended
    federation.sync()
    second = federation.approved(id="the-second")
    reply = federation.nodes["DK"].handle(federation.run(second).request("bundle", "DK"))
    assert code_of(reply) is ReasonCode.BUDGET, last_refusal(federation.nodes["DK"])
