"""What the countries' ledgers hold by the coordinator's own count, for whoever watches.

A ledger is its country's; this repeats its arithmetic over the runs that were launched here. A
run is counted once its first round was asked for: then every node has charged the whole schedule.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from governance.budget.accounting import rdp_micro
from governance.documents.study import Study
from governance.policy.assessment import ledger_terms
from governance.trust.view import TrustedView

Shares = dict[str, dict[str, float]]


def period_shares(view: TrustedView, study: Study, runs: Iterable[Any], now: datetime) -> Shares:
    """Return the parts of this period's budget spent and left, by country of the study.

    `runs` are rows of all runs; `study` names the register that is looked at.
    """
    register = study.population.register_name
    terms = ledger_terms(view.agreement, register, now)
    spent = dict.fromkeys(study.countries, 0)
    for row in runs:
        other = view.study(row.study)
        if not row.round or row.created < terms.period.since or other is None:
            continue
        if other.population.register_name == register:
            _add(spent, other, terms.honest, terms.order)
    return {country: _shares(micro, terms.cap_micro) for country, micro in spent.items()}


def _add(spent: dict[str, int], study: Study, honest: int, order: int) -> None:
    cost = sum(rdp_micro(mechanism, honest, order) for mechanism in study.mechanisms)
    for country in study.countries:
        if country in spent:
            spent[country] += cost


def _shares(micro: int, cap: int) -> dict[str, float]:
    part = min(1.0, micro / cap)
    return {"spent": part, "left": 1 - part}
