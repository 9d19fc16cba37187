"""Periods are counted from the agreement's effective date, and say which charges count."""

from datetime import timedelta, timezone

import pytest

from governance.budget.period import period_of
from governance.errors import LedgerFault
from tests.support.ledger_and_log import EFFECTIVE, NOW, PERIOD_DAYS


def test_only_the_first_period_of_an_agreement_counts_earlier_charges() -> None:
    for days, back in [(0, PERIOD_DAYS), (100, PERIOD_DAYS), (365, 0), (400, 35), (730, 0)]:
        now = EFFECTIVE + timedelta(days=days)
        period = period_of(EFFECTIVE, PERIOD_DAYS, now)
        assert period.since == now - timedelta(days=back)


@pytest.mark.parametrize(
    ("days", "index"), [(0, 0), (364.999, 0), (365, 1), (729.9, 1), (730, 2), (36_500, 100)]
)
def test_periods_are_counted_from_the_effective_date(days: float, index: int) -> None:
    period = period_of(EFFECTIVE, PERIOD_DAYS, EFFECTIVE + timedelta(days=days))
    assert period.index == index
    assert period.end - period.start == timedelta(days=PERIOD_DAYS)
    assert period.start == EFFECTIVE + timedelta(days=365 * index)


def test_periods_do_not_depend_on_the_zone_of_the_clock() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-11)))
    assert period_of(EFFECTIVE, 30, elsewhere) == period_of(EFFECTIVE, 30, NOW)


def test_no_period_before_the_agreement_takes_effect() -> None:
    with pytest.raises(LedgerFault, match="No budget period"):
        period_of(EFFECTIVE, PERIOD_DAYS, EFFECTIVE - timedelta(seconds=1))
    with pytest.raises(LedgerFault, match="No budget period"):
        period_of(EFFECTIVE, 0, NOW)
