"""Where a node stands, in words: what it waits for, and what its budget has left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from governance.budget.accounting import epsilon_of_rdp
from governance.budget.ledger import LedgerView
from governance.documents.agreement import RegisterBudget


@dataclass(frozen=True)
class LinkStatus:
    """Whether the coordinator is reached; `fault` is a sentence, empty where there is none."""

    connected: bool = False
    fault: str = ""


@dataclass(frozen=True)
class StatusSummary:
    """What is known of the node at one moment; faults are sentences, empty where there are none.

    `running` names the studies in whose runs something was said lately; `quiet` counts the runs
    that are not over here and in which nothing was.
    """

    paused: str | None
    link: LinkStatus
    documents: str
    records: str
    running: Sequence[str]
    undecided: Sequence[str]
    quiet: int = 0

    def sentence(self) -> str:
        """Return what the node is doing or waiting for."""
        if self.paused is not None:
            return f"paused: {self.paused or 'by its operator'}"
        waits = {
            "the coordinator": "" if self.link.connected else self.link.fault or "connecting",
            "documents": self.documents,
            "records": self.records,
        }
        return next(
            (f"waiting for {what}: {why}" for what, why in waits.items() if why), self._work
        )

    @property
    def _work(self) -> str:
        if self.running:
            return f"taking part in study {', '.join(self.running)}"
        if self.undecided:
            return f"waiting for a permit for study {', '.join(self.undecided)}"
        if self.quiet:
            runs = "run" if self.quiet == 1 else "runs"
            return f"idle, connected; {self.quiet} earlier {runs} not over here"
        return "idle, connected"


def ledger_status(view: LedgerView, budget: RegisterBudget) -> dict[str, Any]:
    """Return one register's budget, in micro-units of RDP and as the ε at δ that they mean."""
    spent = _epsilon(view.spent_micro, budget)
    return {
        "register": view.register,
        "period_start": view.period.start.isoformat(),
        "period_end": view.period.end.isoformat(),
        "order": view.order,
        "cap_micro": view.cap_micro,
        "spent_micro": view.spent_micro,
        "left_micro": view.left_micro,
        "lifetime_micro": view.lifetime_micro,
        "share_spent": view.spent_micro / view.cap_micro,
        "delta": budget.delta,
        "epsilon": budget.epsilon,
        "epsilon_spent": spent,
        "epsilon_left": max(0.0, budget.epsilon - spent),
        "epsilon_lifetime": _epsilon(view.lifetime_micro, budget),
    }


def _epsilon(micro: int, budget: RegisterBudget) -> float:
    return epsilon_of_rdp(micro, budget.delta, budget.order) if micro else 0.0
