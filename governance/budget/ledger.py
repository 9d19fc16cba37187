"""The privacy ledger of one node: what each person register has spent, never over its cap.

An RDP filter at one fixed order (Feldman, Zrnic 2021): a charge is accepted only if the sum of the
period stays within the cap. Charges are made before a release and never refunded. The budget
belongs to the person register: a new cohort, study or amended agreement opens no new budget. Every
charge between a period's two dates counts in it. In an agreement's first period, every charge made
within one period's length before now counts too, under any agreement. The charge of a run that
lives on after its period's end counts in the next one as well: it pays for the run's next sums, and
the people in them have one cap for all that is released in a period.

A charge may be for a part of the patients, training or held out: no patient is in both, so a run
costs the larger of the two (`governance.budget.composition`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    or_,
    select,
)

from governance.budget.accounting import MICRO, rdp_micro
from governance.budget.composition import SUM, larger_parts, part_of
from governance.budget.period import Period
from governance.errors import LedgerFault
from governance.runtime.database import UtcTime, transaction
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import Mechanism
from protocols.wire.encoding import canonical_json

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
    Column("part", String(16)),
    UniqueConstraint("run", "phase", name="one_charge_a_phase"),
    Index("ledger_by_time", "register", "created"),
)
_COLUMNS = ledger_entries.c


@dataclass(frozen=True)
class Terms:
    """One register's terms in the agreement: `cap_micro` per period at `order`, and honest h.

    `carried` are the runs that began before the period and were still open in it. Their charges
    count in it too.
    """

    register: str
    period: Period
    cap_micro: int
    order: int
    honest: int
    carried: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LedgerEntry:
    """One charge, as stored. `rdp_micro` covers all rounds of the mechanism at `order`.

    `part` is the part of the cohort that pays it; None if everybody does.
    """

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
    part: str | None = None


@dataclass(frozen=True)
class LedgerView:
    """One register's budget as a policy assessment sees it, in micro-units of RDP."""

    register: str
    period: Period
    order: int
    cap_micro: int
    spent_micro: int
    lifetime_micro: int

    @property
    def left_micro(self) -> int:
        """What can still be charged in this period; never below 0."""
        return max(0, self.cap_micro - self.spent_micro)


@dataclass(frozen=True)
class _Charge:
    """The charge that one release would make."""

    study: str
    run: str
    mechanism: Mechanism
    honest: int
    order: int
    part: str | None = None

    @property
    def rdp_micro(self) -> int:
        return rdp_micro(self.mechanism, self.honest, self.order)


class Ledger:
    """The ledger in one SQLite database. Safe for threads and processes."""

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
        accounting: int = SUM,
        connection: Connection | None = None,
    ) -> tuple[LedgerEntry, ...]:
        """Charge all mechanisms or none: one entry per (run, phase of the mechanism).

        `accounting` is the study's: whether training and evaluation add up. A repeated call returns
        the existing entries and charges nothing. `study` is the study's digest, `run` our own run
        id in hexadecimal. Raises Refusal(BUDGET) if the charge would exceed the cap, LedgerFault if
        (run, phase) exists with other contents or `now` is outside the period. With `connection`,
        it joins the caller's transaction and is durable when that commits.
        """
        _require_within(terms.period, now)
        charges = _charges(terms, study, run, mechanisms, accounting)
        _require_distinct(charges)
        with transaction(self._engine, connection) as open_connection:
            new = [each for each in charges if not _is_charged(open_connection, terms, each)]
            _require_room(_view(open_connection, terms), _added(open_connection, terms, run, new))
            for charge in new:
                _insert(open_connection, terms, charge, now)
            return tuple(_of_phase(open_connection, each) for each in charges)

    def assume(
        self,
        terms: Terms,
        *,
        study: str,
        run: str,
        mechanisms: Sequence[Mechanism],
        now: datetime,
        accounting: int,
        connection: Connection,
    ) -> None:
        """Charge what may have been spent since a backup, even over the cap; see `reserve`.

        Only for a ledger that was restored from a backup (docs/adr/0013): it cannot refuse what may
        have happened. Durable when the caller's `connection` commits. Raises LedgerFault.
        """
        _require_within(terms.period, now)
        charges = _charges(terms, study, run, mechanisms, accounting)
        _require_distinct(charges)
        for charge in charges:
            _insert(connection, terms, charge, now)

    def view(self, terms: Terms, connection: Connection | None = None) -> LedgerView:
        """Return the register's cap, what the period has spent and what was ever spent."""
        with transaction(self._engine, connection) as open_connection:
            return _view(open_connection, terms)

    def registers(self) -> set[str]:
        """Return the registers that were ever charged."""
        with transaction(self._engine) as connection:
            return set(connection.execute(select(_COLUMNS.register).distinct()).scalars())

    def entries(
        self,
        register: str | None = None,
        run: str | None = None,
        study: str | None = None,
        run_prefix: str | None = None,
        connection: Connection | None = None,
    ) -> list[LedgerEntry]:
        """Return the entries, oldest first; only those of one register, run or study if given.

        `study` is a study's digest; `run_prefix` is how the ids of runs begin. With `connection`,
        reads in the caller's transaction.
        """
        wanted = {_COLUMNS.register: register, _COLUMNS.run: run, _COLUMNS.study: study}
        conditions = [column == value for column, value in wanted.items() if value is not None]
        if run_prefix is not None:
            conditions.append(_COLUMNS.run.startswith(run_prefix))
        with transaction(self._engine, connection) as open_connection:
            return _select(open_connection, *conditions)


def _charges(
    terms: Terms, study: str, run: str, mechanisms: Sequence[Mechanism], accounting: int
) -> list[_Charge]:
    return [
        _Charge(study, run, each, terms.honest, terms.order, part_of(each.phase, accounting))
        for each in mechanisms
    ]


def total_micro(entries: Iterable[LedgerEntry | _Charge]) -> int:
    """Return what charges cost together: of each run, the costlier part and what all pay."""
    by_part: Counter[tuple[str, str | None]] = Counter()
    for entry in entries:
        by_part[entry.run, entry.part] += entry.rdp_micro
    return larger_parts(by_part)


def _added(connection: Connection, terms: Terms, run: str, charges: Sequence[_Charge]) -> int:
    """Return by how much these charges of a run raise what is spent in the period.

    Only what counts in the period can make a charge cheaper: the period's sum holds no other.
    """
    counting = _select(connection, *_counting(terms), _COLUMNS.run == run)
    known = [_at_order(entry, terms.order) for entry in counting]
    return total_micro([*known, *charges]) - total_micro(known)


def _view(connection: Connection, terms: Terms) -> LedgerView:
    return LedgerView(
        register=terms.register,
        period=terms.period,
        order=terms.order,
        cap_micro=terms.cap_micro,
        spent_micro=_sum(connection, terms.order, *_counting(terms)),
        lifetime_micro=_sum(connection, terms.order, _COLUMNS.register == terms.register),
    )


def _counting(terms: Terms) -> tuple[ColumnElement[bool], ...]:
    """Select by time, not by the period's number: an amended agreement may change the numbers."""
    created, period = _COLUMNS.created, terms.period
    begun = or_(created >= period.since, _COLUMNS.run.in_(sorted(terms.carried)))
    return _COLUMNS.register == terms.register, begun, created < period.end


def _sum(connection: Connection, order: int, *wanted: ColumnElement[bool]) -> int:
    """Add up RDP at `order`; entries charged at another order are recomputed at this one.

    The costlier part of a run may be another one at another order.
    """
    run, part = _COLUMNS.run, _COLUMNS.part
    sums = select(run, part, func.sum(_COLUMNS.rdp_micro)).where(*wanted, _COLUMNS.order == order)
    rows = connection.execute(sums.group_by(run, part)).all()
    by_part = Counter({(each[0], each[1]): int(each[2]) for each in rows})
    for entry in _select(connection, *wanted, _COLUMNS.order != order):
        by_part[entry.run, entry.part] += _at_order(entry, order).rdp_micro
    return larger_parts(by_part)


def _at_order(entry: LedgerEntry, order: int) -> LedgerEntry:
    """Return an entry with its RDP at `order`."""
    if entry.order == order:
        return entry
    micro = rdp_micro(entry.mechanism, entry.honest, order)
    return replace(entry, order=order, rdp_micro=micro)


def _is_charged(connection: Connection, terms: Terms, charge: _Charge) -> bool:
    """Whether this charge exists. Raises LedgerFault if another has the same run and phase."""
    entry = _find(connection, charge)
    if entry is None:
        return False
    known = _Charge(entry.study, entry.run, entry.mechanism, entry.honest, 0, entry.part)
    stored = (entry.register, known)
    if stored != (terms.register, replace(charge, order=0)):
        raise LedgerFault(
            f"Run {charge.run} was charged for {charge.mechanism.phase!r} with other contents",
            why="a run id is used once, for one study and one schedule",
            fix="start a new run",
        )
    return True


def _require_room(view: LedgerView, cost: int) -> None:
    if cost > view.left_micro:
        raise Refusal(
            ReasonCode.BUDGET,
            f"The privacy budget of register {view.register!r} does not cover this study",
            why=(
                f"it would cost {cost / MICRO:.6f} of {view.cap_micro / MICRO:.6f}, and "
                f"{view.left_micro / MICRO:.6f} is left until {view.period.end:%Y-%m-%d}"
            ),
            fix="ask for a smaller ε or fewer rounds, or wait for the next period",
        )


def _insert(connection: Connection, terms: Terms, charge: _Charge, now: datetime) -> None:
    following = select(func.coalesce(func.max(_COLUMNS.position) + 1, 0))
    values = {
        "position": connection.execute(following).scalar_one(),
        "register": terms.register,
        "period": terms.period.index,
        "study": charge.study,
        "run": charge.run,
        "phase": charge.mechanism.phase,
        "mechanism": canonical_json(charge.mechanism.model_dump(mode="json")).decode(),
        "honest": charge.honest,
        "order": charge.order,
        "rdp_micro": charge.rdp_micro,
        "created": now,
        "part": charge.part,
    }
    connection.execute(insert(ledger_entries).values(values))


def _of_phase(connection: Connection, charge: _Charge) -> LedgerEntry:
    entry = _find(connection, charge)
    if entry is None:
        raise LedgerFault("A charge was not stored", fix="check the disk of the state database")
    return entry


def _find(connection: Connection, charge: _Charge) -> LedgerEntry | None:
    run, phase = _COLUMNS.run == charge.run, _COLUMNS.phase == charge.mechanism.phase
    return next(iter(_select(connection, run, phase)), None)


def _select(connection: Connection, *wanted: ColumnElement[bool]) -> list[LedgerEntry]:
    rows = connection.execute(select(ledger_entries).where(*wanted).order_by(_COLUMNS.position))
    return [_entry(row) for row in rows.mappings()]


def _entry(row: RowMapping) -> LedgerEntry:
    mechanism = Mechanism.model_validate_json(row["mechanism"])
    return LedgerEntry(**{**row, "mechanism": mechanism})


def _require_within(period: Period, now: datetime) -> None:
    if not period.start <= now < period.end:
        raise LedgerFault(
            "A charge is outside its budget period",
            why=f"now is {now.isoformat()}; the period ends at {period.end.isoformat()}",
            fix="check this machine's clock, then try again",
        )


def _require_distinct(charges: Sequence[_Charge]) -> None:
    if len({charge.mechanism.phase for charge in charges}) != len(charges):
        raise LedgerFault("A schedule names one phase twice", fix="give each release its own name")
