"""What a run does once it is set up: train and evaluate a model, or open one table.

A thin layer between the rounds, which know nothing of learning, and the learning, which knows
nothing of rounds. Round numbers rise through the whole run, so that training and evaluation never
share one. A run that has rounds behind it is led on from there: a round is asked for again, with
the same bytes, only where nothing was kept of it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from governance.documents.study import Study
from protocols.mechanism import Mechanism
from protocols.private_sum.opening import OpenedSum, VoidRound
from protocols.tasks import CountByFeature, CountPatients, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import COHORT_FLOOR, EVALUATE, TRAIN
from server.errors import OperationFault
from server.learning.evaluate import evaluate
from server.learning.optimiser import OptimiserState, skip, step
from server.learning.tables import read_table
from server.rounds import Conductor, RoundRecord, RoundReport, recorded

MOST_VOID_IN_A_ROW = 3


class RunVoid(OperationFault):
    """A run that opened too little to release anything; what was charged stays charged."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to release."""

    countries: tuple[str, ...]
    void_rounds: int
    model: FloatArray | None
    findings: dict[str, Any]
    """The evaluation of a model, or the table, as JSON."""


class Note(Protocol):
    """Keeps what came of a round, the state after it, and what there is to release once there is.

    All of it lasts, or nothing.
    """

    def __call__(
        self, report: RoundReport, state: bytes, outcome: Outcome | None = None, /
    ) -> None:
        """Keep it."""


@dataclass(frozen=True)
class Past:
    """What a run has behind it: its rounds in order, and the state kept after the last one."""

    rounds: Sequence[RoundRecord] = ()
    state: bytes = b""

    @property
    def void(self) -> int:
        """How many rounds opened nothing."""
        return sum(not one.opened for one in self.rounds)

    @property
    def void_in_a_row(self) -> int:
        """How many of the last ones opened nothing."""
        opened = [place for place, one in enumerate(self.rounds, start=1) if one.opened]
        return len(self.rounds) - max(opened, default=0)


NOTHING = Past()


def lead(study: Study, conductor: Conductor, note: Note, past: Past = NOTHING) -> Outcome:
    """Lead the run of a study from its next round to its last. Raises RunVoid."""
    if isinstance(study.task, Training):
        return _Training(study, study.task, conductor, note, past).run()
    return _open_table(study, study.task, conductor, note, past)


def _open_table(
    study: Study,
    task: CountPatients | CountByFeature,
    conductor: Conductor,
    note: Note,
    past: Past,
) -> Outcome:
    _require_none_void(past.rounds)
    mechanism = next(m for m in study.mechanisms if m.phase != COHORT_FLOOR)
    report = conductor.sum(1, mechanism.phase, b"")
    opened = _required(report, note, b"")
    table = read_table(
        task, study.features, mechanism, opened.values, countries=len(opened.countries)
    )
    outcome = Outcome(opened.countries, 0, None, table.to_json())
    note(report, b"", outcome)
    return outcome


class _Training:
    def __init__(
        self, study: Study, task: Training, conductor: Conductor, note: Note, past: Past
    ) -> None:
        self._study, self._task, self._past = study, task, past
        self._conductor, self._note = conductor, note
        self._void, self._void_in_a_row = past.void, past.void_in_a_row

    def run(self) -> Outcome:
        state, mechanism = self._state(), self._mechanism(TRAIN)
        if self._void_in_a_row >= MOST_VOID_IN_A_ROW:
            _require_none_void(self._past.rounds[-1:])
        for number in range(state.round_number + 1, mechanism.rounds + 1):
            state = self._round(number, mechanism, state)
        return self._evaluated(state, mechanism.rounds + 1)

    def _state(self) -> OptimiserState:
        if self._past.state:
            return OptimiserState.from_bytes(self._past.state)
        return OptimiserState.start(self._task.initial(self._study.features))

    def _round(self, number: int, mechanism: Mechanism, state: OptimiserState) -> OptimiserState:
        report = self._conductor.sum(number, TRAIN, state.payload)
        if isinstance(report.outcome, OpenedSum):
            self._void_in_a_row = 0
            state = self._stepped(mechanism, state, report.outcome)
        else:
            self._count_void()
            state = skip(state)
        self._note(report, state.to_bytes())
        if self._void_in_a_row == MOST_VOID_IN_A_ROW:
            raise _void(recorded(report))
        return state

    def _stepped(
        self, mechanism: Mechanism, state: OptimiserState, opened: OpenedSum
    ) -> OptimiserState:
        part = len(opened.countries) / len(self._study.countries)
        return step(self._task, self._study.features, mechanism, state, opened.values, part=part)

    def _count_void(self) -> None:
        self._void += 1
        self._void_in_a_row += 1

    def _evaluated(self, state: OptimiserState, number: int) -> Outcome:
        if self._task.evaluation is None:
            return Outcome(self._study.countries, self._void, state.model, {})
        _require_none_void([one for one in self._past.rounds if one.number == number])
        mechanism = self._mechanism(EVALUATE)
        report = self._conductor.sum(number, EVALUATE, vector_to_bytes(state.model))
        opened = _required(report, self._note, state.to_bytes())
        findings = evaluate(
            self._task,
            self._study.features,
            mechanism,
            opened.values,
            countries=len(opened.countries),
            generator=np.random.default_rng(secrets.randbits(128)),
        )
        outcome = Outcome(opened.countries, self._void, state.model, findings.to_json())
        self._note(report, state.to_bytes(), outcome)
        return outcome

    def _mechanism(self, phase: str) -> Mechanism:
        return next(m for m in self._study.mechanisms if m.phase == phase)


def _required(report: RoundReport, note: Note, state: bytes) -> OpenedSum:
    """Return the sum of a round that the run cannot do without; a void one is kept as such."""
    if isinstance(report.outcome, VoidRound):
        note(report, state)
        raise _void(recorded(report))
    return report.outcome


def _require_none_void(rounds: Sequence[RoundRecord]) -> None:
    """A round's number is used once: one that was void before the run was carried on stays so."""
    for one in rounds:
        if not one.opened:
            raise _void(one)


def _void(record: RoundRecord) -> RunVoid:
    listed = "; ".join(f"{country}: {cause}" for country, cause in sorted(record.causes.items()))
    return RunVoid(
        f"Round {record.number} ({record.phase}) opened nothing",
        why=". ".join(part for part in (record.reason, listed) if part),
        fix="see `status` on the nodes named; a new launch needs new permits, and is charged",
    )
