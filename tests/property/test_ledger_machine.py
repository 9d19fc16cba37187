"""The ledger against a simple model: charges, repetitions, crashes, periods, amendments."""

import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection

from governance.budget.accounting import rdp_micro
from governance.budget.ledger import (
    Ledger,
    LedgerEntry,
    Period,
    Terms,
    period_of,
)
from governance.errors import LedgerFault
from protocols.errors import Refusal
from protocols.numerics.mechanism import Mechanism, Scope
from tests.support.examples import examples
from tests.support.ledger_and_log import (
    EFFECTIVE,
    STUDY,
    node_state,
    release,
    run_id,
)

CAP = 3 * rdp_micro(release(), 2, 8)
DAYS = 30
REGISTERS = ("adults", "children")
releases = st.builds(
    release,
    phase=st.sampled_from(["train", "evaluate", "count"]),
    rounds=st.integers(1, 12),
    noise_std=st.sampled_from([3000, 4000, 9000]),
    sampling_rate=st.sampled_from([1.0, 0.1]),
    scope=st.sampled_from(list(Scope)),
)
schedules = st.lists(releases, min_size=1, max_size=3, unique_by=lambda each: each.phase)


class LedgerMachine(RuleBasedStateMachine):
    """`charged` is what must be stored: (run, phase) to register, mechanism and time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.engine = node_state(self.folder)
        self.now: datetime = EFFECTIVE
        self.effective = EFFECTIVE
        self.charged: dict[tuple[str, str], tuple[str, Mechanism, datetime]] = {}

    @initialize()
    def begin(self) -> None:
        assert self.ledger.entries() == []

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.engine)

    def terms(self, register: str) -> Terms:
        period = period_of(self.effective, DAYS, self.now)
        return Terms(register=register, period=period, cap_micro=CAP, order=8, honest=2)

    def model_spent(self, register: str, period: Period) -> int:
        return sum(
            rdp_micro(mechanism, 2, 8)
            for owner, mechanism, at in self.charged.values()
            if owner == register and period.since <= at < period.end
        )

    def reserve(
        self,
        register: str,
        run: str,
        schedule: list[Mechanism],
        connection: Connection | None = None,
    ) -> tuple[LedgerEntry, ...]:
        return self.ledger.reserve(
            self.terms(register),
            study=STUDY,
            run=run,
            mechanisms=schedule,
            now=self.now,
            connection=connection,
        )

    @rule(register=st.sampled_from(REGISTERS), run=st.integers(0, 6), schedule=schedules)
    def charge(self, register: str, run: int, schedule: list[Mechanism]) -> None:
        name, terms = run_id(run), self.terms(register)
        standing = {m.phase: self.charged.get((name, m.phase)) for m in schedule}
        conflict = any(
            stood and stood[:2] != (register, m) for m in schedule if (stood := standing[m.phase])
        )
        new = [m for m in schedule if standing[m.phase] is None]
        cost = sum(rdp_micro(m, 2, 8) for m in new)
        over = bool(new) and self.model_spent(register, terms.period) + cost > CAP
        if conflict or over:
            with pytest.raises(LedgerFault if conflict else Refusal):
                self.reserve(register, name, schedule)
            return
        entries = self.reserve(register, name, schedule)
        assert [entry.mechanism for entry in entries] == schedule
        for mechanism in new:
            self.charged[name, mechanism.phase] = (register, mechanism, self.now)
        assert not new or self.ledger.view(terms).spent_micro <= CAP

    @rule(register=st.sampled_from(REGISTERS), schedule=schedules)
    def crash_before_commit(self, register: str, schedule: list[Mechanism]) -> None:
        with self.engine.connect() as connection:
            try:
                self.reserve(register, run_id(99), schedule, connection)
            except Refusal:
                return
            finally:
                connection.rollback()

    @rule(days=st.integers(1, 20))
    def wait(self, days: int) -> None:
        self.now += timedelta(days=days)

    @rule()
    def reopen(self) -> None:
        self.engine.dispose()
        self.engine = node_state(self.folder)

    @rule(days=st.integers(0, 10))
    def amend(self, days: int) -> None:
        """A new agreement counts its periods from another day, which gives no new budget."""
        before = {
            register: self.ledger.view(self.terms(register)).spent_micro for register in REGISTERS
        }
        self.effective = self.now - timedelta(days=days)
        for register, spent in before.items():
            assert self.ledger.view(self.terms(register)).spent_micro >= spent

    @invariant()
    def the_cap_holds_and_nothing_is_forgotten(self) -> None:
        for register in REGISTERS:
            view = self.ledger.view(self.terms(register))
            assert view.spent_micro == self.model_spent(register, view.period)
            forever = datetime.max.replace(tzinfo=EFFECTIVE.tzinfo)
            everything = Period(0, EFFECTIVE, forever, since=EFFECTIVE)
            assert view.lifetime_micro == self.model_spent(register, everything)
            assert view.left_micro == max(0, CAP - view.spent_micro)

    @invariant()
    def entries_are_exactly_what_was_charged(self) -> None:
        entries = {
            (entry.run, entry.phase): (entry.register, entry.mechanism, entry.created)
            for entry in self.ledger.entries()
        }
        assert entries == self.charged

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=examples(20), stateful_step_count=20, deadline=None
)
