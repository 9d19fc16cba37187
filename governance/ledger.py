"""The privacy ledger of one node: what each person register has spent, never over its cap.

An RDP filter at one fixed order (Feldman, Zrnic 2021): a charge is taken only if the sum of the
period stays within the cap. Charges are made before a release and never refunded. The ledger
belongs to the person register: a new cohort, study or amended agreement opens no new budget,
because whatever was charged between a period's two dates counts in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from governance.database import UtcTime
from protocols.mechanism import Mechanism

LEDGER_TABLES = MetaData()

ledger_entries = Table(
    "ledger_entries",
    LEDGER_TABLES,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("register", String(64), nullable=False),
    Column("period", Integer, nullable=False),
    Column("study", String(71), nullable=False),
    Column("run", String(32), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("mechanism", Text, nullable=False),
    Column("honest", Integer, nullable=False),
    Column("order", Integer, nullable=False),
    Column("rdp_micro", BigInteger, nullable=False),
    Column("created", UtcTime, nullable=False),
    UniqueConstraint("run", "phase", name="one_charge_a_phase"),
    Index("ledger_by_time", "register", "created"),
)


@dataclass(frozen=True)
class Period:
    """One budget period of an agreement: `start` ≤ t < `end`, UTC, `index` from 0."""

    index: int
    start: datetime
    end: datetime


def period_of(effective: datetime, period_days: int, now: datetime) -> Period:
    """Return the period that holds `now`. Raises LedgerFault before `effective`."""
    length = timedelta(days=period_days)
    index = (now - effective) // length
    return Period(index, effective + index * length, effective + (index + 1) * length)


@dataclass(frozen=True)
class Terms:
    """What the agreement fixes for one register: `cap_micro` a period at `order`, and honest h."""

    register: str
    period: Period
    cap_micro: int
    order: int
    honest: int


@dataclass(frozen=True)
class LedgerEntry:
    """One charge, as stored. `rdp_micro` covers all rounds of the mechanism at `order`."""

    position: int
    register: str
    period: int
    study: str
    run: str
    phase: str
    mechanism: Mechanism
    honest: int
    order: int
    rdp_micro: int
    created: datetime


@dataclass(frozen=True)
class LedgerView:
    """What a policy assessment may know of one register's budget, in micro-units of RDP."""

    register: str
    period: Period
    order: int
    cap_micro: int
    spent_micro: int
    lifetime_micro: int

    @property
    def left_micro(self) -> int:
        """What this period can still take; never below 0."""
        return max(0, self.cap_micro - self.spent_micro)


class Ledger:
    """The ledger in one SQLite database. Safe among threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reserve(
        self,
        terms: Terms,
        *,
        study: str,
        run: str,
        mechanisms: Sequence[Mechanism],
        now: datetime,
        connection: Connection | None = None,
    ) -> tuple[LedgerEntry, ...]:
        """Charge every mechanism, or none: one entry per (run, mechanism's phase).

        A repetition returns the entries that stand and charges nothing. `study` is its digest,
        `run` our own run id in hexadecimal. Raises Refusal(BUDGET) where the cap would be passed,
        LedgerFault where (run, phase) stands with other contents or `now` is outside the period.
        With `connection`, joins the caller's transaction: nothing lasts until that commits.
        """
        raise NotImplementedError

    def view(self, terms: Terms, connection: Connection | None = None) -> LedgerView:
        """Return cap, spent and lifetime of the register, at the terms' order."""
        raise NotImplementedError

    def spent(self, register: str, period: Period, order: int) -> int:
        """Return the micro-units of RDP at `order` charged in the period."""
        raise NotImplementedError

    def lifetime(self, register: str, order: int) -> int:
        """Return the micro-units of RDP at `order` ever charged: periods add up."""
        raise NotImplementedError

    def entries(self, register: str | None = None, run: str | None = None) -> list[LedgerEntry]:
        """Return the entries in the order they were made, of one register or run if given."""
        raise NotImplementedError
