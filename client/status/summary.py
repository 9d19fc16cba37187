"""Summarises in one sentence what a node does or waits for, and computes its remaining budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.status.model import LedgerStatus
from governance.budget.accounting import epsilon_of_rdp
from governance.budget.ledger import LedgerView
from governance.documents.agreement import RegisterBudget


@dataclass(frozen=True)
class LinkStatus:
    """Whether the node is connected to the coordinator; `fault` is a sentence, or empty.

    `clock` says how this machine's clock differs from the exchange's; empty if it does not.
    """

    connected: bool = False
    fault: str = ""
    clock: str = ""


@dataclass(frozen=True)
class StatusSummary:
    """What decides the sentence about a node; faults are sentences, or empty.

    `running` names the studies of the runs in which the node answered lately; `quiet` counts the
    runs that are still open on this node and in which it did not. `undecided` names the studies
    without a permit.
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
        obstacles = {
            "the coordinator": "" if self.link.connected else self.link.fault or "connecting",
            "documents": self.documents,
            "records": self.records,
        }
        return next(
            (f"waiting for {name}: {why}" for name, why in obstacles.items() if why), self._work
        )

    @property
    def _work(self) -> str:
        if self.running:
            return f"taking part in study {', '.join(self.running)}"
        if self.undecided:
            return f"waiting for a permit for study {', '.join(self.undecided)}"
        if self.quiet:
            runs = "run is" if self.quiet == 1 else "runs are"
            return f"idle, connected; {self.quiet} earlier {runs} still open on this node"
        return "idle, connected"


def ledger_status(view: LedgerView, budget: RegisterBudget) -> LedgerStatus:
    """Return the budget of one person register, in micro-units of RDP and as the ε at δ."""
    spent = _epsilon(view.spent_micro, budget)
    return LedgerStatus(
        register_name=view.register,
        period_start=view.period.start.isoformat(),
        period_end=view.period.end.isoformat(),
        order=view.order,
        cap_micro=view.cap_micro,
        spent_micro=view.spent_micro,
        left_micro=view.left_micro,
        lifetime_micro=view.lifetime_micro,
        share_spent=view.spent_micro / view.cap_micro,
        delta=budget.delta,
        epsilon=budget.epsilon,
        epsilon_spent=spent,
        epsilon_left=max(0.0, budget.epsilon - spent),
        epsilon_lifetime=_epsilon(view.lifetime_micro, budget),
    )


def _epsilon(micro: int, budget: RegisterBudget) -> float:
    return epsilon_of_rdp(micro, budget.delta, budget.order) if micro else 0.0
