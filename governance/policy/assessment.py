"""The one decision point: may this country contribute to this study, and what would it cost.

The node's gate, the coordinator's `study check` and the officer's `show` all use it. With the same
documents they get the same answer with the same reasons.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import Template

from governance.budget.accounting import cap_micro
from governance.budget.composition import schedule_epsilon, schedule_rdp_micro
from governance.budget.ledger import LedgerView, Terms
from governance.budget.period import period_of
from governance.cedar.engine import (
    Act,
    Clause,
    PolicyRequest,
    decide,
)
from governance.documents.agreement import Agreement, RegisterBudget
from governance.documents.permit import Permit, Withdrawal
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.facts import Charge, Facts
from governance.runtime.safe_text import quoted
from protocols.errors import ReasonCode, Refusal

REGISTER_UNKNOWN, DELTA = "agreement/register-unknown", "agreement/delta"
"""Ids of clauses in the base policy."""

__all__ = ["Act", "Assessment", "Charge", "Finding", "assess", "ledger_terms"]


@dataclass(frozen=True)
class Finding:
    """One reason for a refusal: the clause that decided, in a plain sentence, and what to do."""

    code: ReasonCode
    clause: str
    sentence: str
    fix: str


@dataclass(frozen=True)
class Assessment:
    """The decision about one country, with its reasons.

    `clauses` are the ids of the policies that determined it, as the audit log records them.
    """

    country: str
    allowed: bool
    findings: tuple[Finding, ...]
    clauses: tuple[str, ...]
    charge: Charge | None

    def require(self) -> None:
        """Raise Refusal with the first finding unless allowed."""
        if not self.allowed:
            raise self.refusal(f"{self.country} may not contribute to this study")

    def refusal(self, what: str, fix: str = "") -> Refusal:
        """Return a refusal with every reason, and the first one's fix unless another is given."""
        first = self.findings[0]
        return Refusal(
            first.code,
            what,
            why=" ".join(finding.sentence for finding in self.findings),
            fix=fix or first.fix,
            clause=first.clause,
        )


def ledger_terms(
    agreement: Agreement, register: str, now: datetime, *, known: datetime | None = None
) -> Terms:
    """Return the agreement's terms for the register at `now`.

    `known` is since when a ledger knows these periods; see `period_of`. Raises DocumentFault if
    the agreement has no budget for the register, or is not yet in effect.
    """
    budget = agreement.register_budget(register)
    if budget is None or now < agreement.effective:
        raise DocumentFault(
            f"The agreement has no privacy budget for {register} now",
            why="a register has a budget from the day the agreement takes effect",
            fix="name a register of the agreement, or wait until it takes effect",
        )
    return Terms(
        register=register,
        period=period_of(agreement.effective, budget.period_days, now, known=known),
        cap_micro=_cap(budget),
        order=budget.order,
        honest=agreement.honest,
    )


def assess(
    study: Study,
    agreement: Agreement,
    *,
    country: str,
    now: datetime,
    act: Act = Act.CONTRIBUTE,
    permit: Permit | None = None,
    withdrawal: Withdrawal | None = None,
    national: str | None = None,
    installed_tasks: Collection[str],
    ledger: LedgerView | None = None,
    reserved_micro: int = 0,
) -> Assessment:
    """Decide whether one country may contribute to the study, and what that would cost.

    Without `ledger` the charge is compared with the whole cap. `now` is the reference time of the
    trusted view, not a clock read here. `withdrawal` is one of this study. `reserved_micro` is
    what this run has reserved already, which `ledger` counts as spent.
    """
    charge = _charge(study, agreement, ledger)
    facts = Facts(
        study=study,
        agreement=agreement,
        country=country,
        now=now,
        permit=permit,
        withdrawal=withdrawal,
        installed_tasks=installed_tasks,
        charge=charge,
        owed_micro=max(0, charge.micro - reserved_micro) if charge else 0,
    )
    request = PolicyRequest(agreement.coordinator.identity_key, act, study.digest, facts.context())
    decision = decide(request, agreement.policy, national)
    words = facts.words()
    findings = (
        [] if decision.allowed else [_finding(c, words) for c in _explained(decision.clauses)]
    )
    return Assessment(
        country=country,
        allowed=decision.allowed,
        findings=tuple(findings),
        clauses=tuple(clause.id for clause in decision.clauses),
        charge=charge,
    )


def _explained(clauses: Sequence[Clause]) -> list[Clause]:
    """Return the clauses to explain: without a known register, no δ is there to compare."""
    unknown = any(clause.id == REGISTER_UNKNOWN for clause in clauses)
    return [clause for clause in clauses if not (unknown and clause.id == DELTA)]


def _finding(clause: Clause, words: Mapping[str, str]) -> Finding:
    sentence, fix = (
        Template(text).safe_substitute(words) for text in (clause.sentence, clause.fix)
    )
    if not clause.ours:
        sentence, fix = f"A rule of the parties says: {quoted(sentence)}", f"it says: {quoted(fix)}"
    return Finding(code=clause.code, clause=clause.id, sentence=sentence, fix=fix)


def _charge(study: Study, agreement: Agreement, ledger: LedgerView | None) -> Charge | None:
    """Return the charge; None if the register is unknown or the study has no valid schedule.

    Policies refuse both (`agreement/register-unknown`, `study/not-priced`).
    """
    budget = agreement.register_budget(study.population.register_name)
    if budget is None or not study.schedule_matches_task:
        return None
    honest = agreement.honest
    return Charge(
        register=budget.register_name,
        order=budget.order,
        micro=schedule_rdp_micro(study.mechanisms, study.accounting, honest, budget.order),
        cap_micro=_cap(budget),
        left_micro=_left(budget, ledger),
        epsilon=schedule_epsilon(
            study.releases_of(agreement), study.accounting, honest, study.privacy.delta
        ),
        delta=study.privacy.delta,
    )


def _left(budget: RegisterBudget, ledger: LedgerView | None) -> int:
    if ledger is None:
        return _cap(budget)
    same = (ledger.register, ledger.order) == (budget.register_name, budget.order)
    return ledger.left_micro if same else 0


def _cap(budget: RegisterBudget) -> int:
    return cap_micro(budget.epsilon, budget.delta, budget.order)
