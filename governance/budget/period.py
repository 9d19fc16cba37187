"""The budget periods of an agreement, and since when charges count in each of them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from governance.errors import LedgerFault


@dataclass(frozen=True)
class Period:
    """One budget period of an agreement: `start` ≤ t < `end` in UTC; `index` counts from 0.

    Charges from `since` on count in it. This is `start`, with two exceptions: in the agreement's
    first period, and for one period's length after its periods were moved, it is one period's
    length before now, so that charges under the earlier dates still count.
    """

    index: int
    start: datetime
    end: datetime
    since: datetime


def period_of(
    effective: datetime, period_days: int, now: datetime, *, known: datetime | None = None
) -> Period:
    """Return the period that holds `now`; days are of 24 hours, counted from `effective`.

    `known` is since when these periods are known, if they replaced others; None means always.
    Raises LedgerFault before `effective` or for a period shorter than a day.
    """
    if period_days < 1 or now < effective:
        raise LedgerFault(
            "No budget period has begun",
            why=f"the agreement takes effect at {effective.isoformat()}; now is {now.isoformat()}",
            fix="wait until then, and check this machine's clock",
        )
    length = timedelta(days=period_days)
    index = (now - effective) // length
    start = effective + index * length
    counted = index > 0 and (known is None or now >= known + length)
    return Period(index, start, start + length, since=start if counted else now - length)
