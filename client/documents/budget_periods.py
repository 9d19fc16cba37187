"""Stores since when each person register has its current budget periods.

An amendment that moves the periods could place a boundary just after charges that were made
already. So for the length of one period after such a move, boundaries do not count: the charges of
one whole period back count instead.
"""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from client.state.key_value import get_value, set_value
from governance.documents.agreement import Agreement
from governance.documents.models import UtcTime

BUDGET_PERIODS = "budget-periods"
"""The name under which the periods are stored in the node's database."""


class RegisterPeriods(BaseModel):
    """The periods of one register, and since when they are known; None for the first ones."""

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
        """Return the stored periods."""
        text = get_value(connection, BUDGET_PERIODS)
        return cls.model_validate_json(text) if text else cls()

    def save(self, connection: Connection) -> None:
        """Store the periods in the caller's transaction."""
        set_value(connection, BUDGET_PERIODS, self.model_dump_json())

    def with_agreement(self, agreement: Agreement, now: datetime) -> Self:
        """Return a copy with the periods of an agreement that is in force at `now`."""
        registers = dict(self.registers)
        for budget in agreement.budget:
            name = budget.register_name
            former = registers.get(name)
            same = former and (former.effective, former.period_days) == (
                agreement.effective,
                budget.period_days,
            )
            if not same:
                since = now.replace(microsecond=0) if former else None
                registers[name] = RegisterPeriods(
                    effective=agreement.effective, period_days=budget.period_days, since=since
                )
        return self.model_copy(update={"registers": registers})

    def since(self, register: str) -> datetime | None:
        """Return since when the register has its current periods; None: always."""
        periods = self.registers.get(register)
        return periods.since if periods else None
