"""The one decision point: may this country contribute to this study, and what would it cost."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from governance.documents.agreement import Agreement
from governance.documents.permit import Permit, Withdrawal
from governance.documents.study import Study
from governance.ledger import LedgerView, Terms
from governance.policy.cedar import Act
from protocols.errors import ReasonCode


@dataclass(frozen=True)
class Finding:
    """One reason for a no: the clause that decided, in a plain sentence, and what to do."""

    code: ReasonCode
    clause: str
    sentence: str
    fix: str


@dataclass(frozen=True)
class Charge:
    """What the study costs one register: RDP micro-units at `order`, and ε at δ by PLD."""

    register: str
    order: int
    micro: int
    cap_micro: int
    left_micro: int
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Assessment:
    """The decision about one country, explaining itself."""

    country: str
    allowed: bool
    findings: tuple[Finding, ...]
    clauses: tuple[str, ...]
    charge: Charge | None

    def require(self) -> None:
        """Raise Refusal with the first finding unless allowed."""
        raise NotImplementedError


def ledger_terms(agreement: Agreement, register: str, now: datetime) -> Terms:
    """Return what the agreement fixes for the register at `now`. Raises DocumentFault."""
    raise NotImplementedError


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
    """Decide for one country. `ledger` None: the charge is compared with the whole cap.

    `reserved_micro` is what this run has reserved already, which `ledger` counts as spent.
    """
    raise NotImplementedError
