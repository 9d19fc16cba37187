"""Estimates what the countries' ledgers hold, from the runs that this coordinator launched.

The ledger itself is the country's; this repeats its arithmetic. A run counts as soon as its first
round was requested, because every node has then charged the whole schedule.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from governance.budget.composition import schedule_rdp_micro
from governance.budget.ledger import Terms
from governance.documents.study import Study
from governance.policy.assessment import ledger_terms
from governance.trust.view import TrustedView
from protocols.numerics.mechanism import Mechanism
from server.answers import LedgerShares
from server.runs.store import RunRow


def period_shares(
    view: TrustedView, study: Study, runs: Iterable[RunRow], now: datetime
) -> dict[str, LedgerShares]:
    """Return the shares of this period's budget that are spent and left, by country of the study.

    `runs` are all runs; `study` names the register whose ledger is estimated.
    """
    register = study.population.register_name
    terms = ledger_terms(view.agreement, register, now)
    spent = dict.fromkeys(study.countries, 0)
    counted: set[bytes] = set()
    for run in runs:
        other = view.study(run.study)
        if not run.round or other is None or not _counts(run, terms.period.since):
            continue
        if other.population.register_name == register:
            paid_already = other.cohort_definition in counted
            releases = other.charged_by_run if paid_already else other.mechanisms
            _add(spent, other, releases, terms)
            if view.agreement.cohort_count is not None:
                counted.add(other.cohort_definition)
    return {country: _shares(micro, terms.cap_micro) for country, micro in spent.items()}


def _counts(run: RunRow, since: datetime) -> bool:
    """Return whether a run was charged in the period, or lived on in it."""
    return run.created >= since or not run.over or run.updated >= since


def _add(spent: dict[str, int], study: Study, releases: Sequence[Mechanism], terms: Terms) -> None:
    cost = schedule_rdp_micro(releases, study.accounting, terms.honest, terms.order)
    for country in study.countries:
        if country in spent:
            spent[country] += cost


def _shares(micro: int, cap: int) -> LedgerShares:
    share = min(1.0, micro / cap)
    return LedgerShares(spent=share, left=1 - share)
