"""Since when this node has known the budget periods of each register.

An amendment that moves its periods could place a boundary just behind what was spent already. For
the length of one period after such a move no boundary counts: charges of one whole period do.
"""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from client.state.key_value import get_value, set_value
from governance.documents.agreement import Agreement
from governance.documents.models import UtcTime

BUDGET_PERIODS = "budget-periods"


class RegisterPeriods(BaseModel):
    """One register's periods, and since when they are known; None for the first ones ever."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effective: UtcTime
    period_days: int
    since: UtcTime | None = None


class BudgetPeriods(BaseModel):
    """The periods of every register that an agreement ever had."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    registers: dict[str, RegisterPeriods] = {}

    @classmethod
    def load(cls, connection: Connection) -> Self:
        """Return what is kept."""
        text = get_value(connection, BUDGET_PERIODS)
        return cls.model_validate_json(text) if text else cls()

    def keep(self, connection: Connection) -> None:
        """Keep it in the caller's transaction."""
        set_value(connection, BUDGET_PERIODS, self.model_dump_json())

    def seeing(self, agreement: Agreement, now: datetime) -> Self:
        """Return it after this agreement was seen in force."""
        known = dict(self.registers)
        for budget in agreement.budget:
            name = budget.register_name
            before = known.get(name)
            same = before and (before.effective, before.period_days) == (
                agreement.effective,
                budget.period_days,
            )
            if not same:
                since = now.replace(microsecond=0) if before else None
                known[name] = RegisterPeriods(
                    effective=agreement.effective, period_days=budget.period_days, since=since
                )
        return self.model_copy(update={"registers": known})

    def since(self, register: str) -> datetime | None:
        """Return since when the register's present periods are known."""
        grid = self.registers.get(register)
        return grid.since if grid else None
