"""The ledger against a simple model: charges, repetitions, crashes, periods, amendments."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection

from governance.budget.accounting import rdp_micro
from governance.budget.ledger import Ledger, LedgerEntry, Terms
from governance.budget.period import Period, period_of
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

Charged = tuple[str, Mechanism, datetime, int]
NOTHING: Mapping[tuple[str, str], Charged] = {}
PAYERS = {"train": "who trains", "evaluate": "who is held out", "count": ""}
"""Who pays for a release of a study with accounting 2: everybody, or a part of the patients."""


def other_contents(phase: str, known: Charged, asked: Charged) -> bool:
    """Return whether a charge conflicts with the stored one: by register, mechanism or payers."""
    same_payers = known[3] == asked[3] or not PAYERS[phase]
    return known[:2] != asked[:2] or not same_payers


class LedgerMachine(RuleBasedStateMachine):
    """`charged` is what must be stored: (run, phase) to register, mechanism, time, accounting."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.engine = node_state(self.folder)
        self.now: datetime = EFFECTIVE
        self.effective = EFFECTIVE
        self.order = 8
        self.charged: dict[tuple[str, str], Charged] = {}

    @initialize()
    def begin(self) -> None:
        assert self.ledger.entries() == []

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.engine)

    def terms(self, register: str) -> Terms:
        period = period_of(self.effective, DAYS, self.now)
        return Terms(register=register, period=period, cap_micro=CAP, order=self.order, honest=2)

    def model_spent(
        self, register: str, period: Period, more: Mapping[tuple[str, str], Charged] = NOTHING
    ) -> int:
        """Return what all runs cost: of each, what everybody pays and the costlier part."""
        by_run: dict[str, Counter[str]] = {}
        for (run, phase), (owner, mechanism, at, accounting) in {**self.charged, **more}.items():
            if owner == register and period.since <= at < period.end:
                payer = PAYERS[phase] if accounting == 2 else ""
                costs = by_run.setdefault(run, Counter())
                costs[payer] += rdp_micro(mechanism, 2, self.order)
        return sum(
            costs[""] + max(costs["who trains"], costs["who is held out"])
            for costs in by_run.values()
        )

    def reserve(
        self,
        register: str,
        run: str,
        schedule: list[Mechanism],
        connection: Connection | None = None,
        *,
        accounting: int,
    ) -> tuple[LedgerEntry, ...]:
        return self.ledger.reserve(
            self.terms(register),
            study=STUDY,
            run=run,
            mechanisms=schedule,
            now=self.now,
            accounting=accounting,
            connection=connection,
        )

    @rule(
        register=st.sampled_from(REGISTERS),
        run=st.integers(0, 6),
        schedule=schedules,
        accounting=st.sampled_from([1, 2]),
    )
    def charge(self, register: str, run: int, schedule: list[Mechanism], accounting: int) -> None:
        name, terms = run_id(run), self.terms(register)
        asked = {(name, m.phase): (register, m, self.now, accounting) for m in schedule}
        new = {key: charge for key, charge in asked.items() if key not in self.charged}
        conflict = any(
            other_contents(phase, self.charged[run, phase], charge)
            for (run, phase), charge in asked.items()
            if (run, phase) not in new
        )
        before = self.model_spent(register, terms.period)
        after = self.model_spent(register, terms.period, new)
        over = after > max(CAP, before)
        if conflict or over:
            with pytest.raises(LedgerFault if conflict else Refusal):
                self.reserve(register, name, schedule, accounting=accounting)
            return
        entries = self.reserve(register, name, schedule, accounting=accounting)
        assert [entry.mechanism for entry in entries] == schedule
        self.charged |= new
        assert self.ledger.view(terms).spent_micro == after

    @rule(register=st.sampled_from(REGISTERS), schedule=schedules)
    def crash_before_commit(self, register: str, schedule: list[Mechanism]) -> None:
        with self.engine.connect() as connection:
            try:
                self.reserve(register, run_id(99), schedule, connection, accounting=2)
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

    @rule(order=st.sampled_from([8, 16, 64]))
    def amend_the_order(self, order: int) -> None:
        """At another order another part may be the costlier one, and the cap be passed."""
        self.order = order

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
        assert entries == {key: charge[:3] for key, charge in self.charged.items()}

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=examples(20), stateful_step_count=20, deadline=None
)
