"""The coordinator's estimate of the countries' ledgers, from its own runs."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from governance.budget.accounting import rdp_micro
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.policy.assessment import ledger_terms
from server.services.ledger_estimate import period_shares
from tests.support import documents

AGREED = documents.agreement()
STUDY = documents.study(AGREED)
REGISTER = STUDY.population.register_name
BEGUN = AGREED.effective
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Row:
    created: datetime
    round: int = 1
    study: str = STUDY.digest
    over: bool = True
    ended: datetime | None = None

    @property
    def updated(self) -> datetime:
        return self.ended or self.created


def shares(*rows: Row, now: datetime, agreement: Agreement = AGREED) -> dict[str, float]:
    """Return each country's spent share; check that spent and left add up to one."""

    def known(wanted: str) -> Study | None:
        return STUDY if wanted == STUDY.digest else None

    view: Any = SimpleNamespace(agreement=agreement, study=known)
    by_country = period_shares(view, STUDY, rows, now)  # type: ignore[arg-type]
    for ledger in by_country.values():
        assert ledger.left == pytest.approx(1 - ledger.spent)
    return {country: ledger.spent for country, ledger in by_country.items()}


def cost(now: datetime) -> float:
    terms = ledger_terms(AGREED, REGISTER, now)
    total = sum(rdp_micro(each, terms.honest, terms.order) for each in STUDY.mechanisms)
    return min(1.0, total / terms.cap_micro)


def test_a_run_counts_for_every_country_of_its_study() -> None:
    now = BEGUN + 2 * DAY
    assert shares(Row(BEGUN + DAY), now=now) == dict.fromkeys(STUDY.countries, cost(now))


@pytest.mark.parametrize(
    "row", [Row(BEGUN + DAY, round=0), Row(BEGUN + DAY, study="sha256:" + "0" * 64)]
)
def test_a_run_without_a_round_or_of_an_unknown_study_does_not_count(row: Row) -> None:
    assert set(shares(row, now=BEGUN + 2 * DAY).values()) == {0.0}


def test_an_amended_agreement_does_not_hide_earlier_charges() -> None:
    amended = AGREED.model_copy(update={"effective": BEGUN + 10 * DAY})
    now = BEGUN + 11 * DAY
    assert set(shares(Row(BEGUN + 9 * DAY), now=now, agreement=amended).values()) == {cost(now)}


def test_a_new_period_begins_with_nothing_spent() -> None:
    budget = AGREED.register_budget(REGISTER)
    assert budget is not None
    now = BEGUN + budget.period_days * DAY
    assert set(shares(Row(now - DAY), now=now).values()) == {0.0}
    assert set(shares(Row(now), now=now).values()) == {cost(now)}


def test_a_run_that_lives_on_counts_in_the_next_period() -> None:
    budget = AGREED.register_budget(REGISTER)
    assert budget is not None
    begins = BEGUN + budget.period_days * DAY
    now = begins + 2 * DAY
    for row in (Row(begins - DAY, over=False), Row(begins - DAY, ended=begins)):
        assert set(shares(row, now=now).values()) == {cost(now)}
    assert set(shares(Row(begins - 2 * DAY, ended=begins - DAY), now=now).values()) == {0.0}


@pytest.mark.parametrize("accounting", [1, 2])
def test_a_run_counts_as_its_study_is_charged(accounting: int, monkeypatch: Any) -> None:
    fields = documents.training_fields(3, evaluation={"held_out": 0.3})
    trained = documents.study(AGREED, accounting=accounting, **fields)
    monkeypatch.setattr(f"{__name__}.STUDY", trained)
    now = BEGUN + 2 * DAY
    terms = ledger_terms(AGREED, REGISTER, now)
    count, train, evaluate = (rdp_micro(m, terms.honest, terms.order) for m in trained.mechanisms)
    wanted = count + (train + evaluate if accounting == 1 else max(train, evaluate))
    spent = shares(Row(BEGUN + DAY, study=trained.digest), now=now)
    assert set(spent.values()) == {min(1.0, wanted / terms.cap_micro)}
