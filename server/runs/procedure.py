"""The procedure of a run after its set-up: train and evaluate a model, or open one table.

A thin layer between the rounds, which know nothing about learning, and the learning, which knows
nothing about rounds. Round numbers rise through the whole run, so that training and evaluation
never share one. A resumed run continues after its last stored round; a round is requested again,
with the same bytes, only if nothing of it was stored.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from governance.documents.study import Study
from governance.results.result import ResultPart
from protocols.numerics.mechanism import Mechanism
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.tasks import CountByFeature, CountPatients, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import COHORT_FLOOR, EVALUATE, TRAIN
from server.errors import CoordinatorFault
from server.learning.evaluate import evaluate
from server.learning.optimiser import OptimiserState, skip, step
from server.learning.plausibility import impossible_figure
from server.learning.tables import read_table
from server.runs.participation import participation_of
from server.runs.rounds import (
    RoundDriver,
    RoundRecord,
    RoundReport,
    recorded,
)

MAX_VOID_IN_A_ROW = 3


class RunVoid(CoordinatorFault):
    """A run in which too few rounds opened for a release; what was charged stays charged."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run releases, and which countries took part in it."""

    part: ResultPart
    model: FloatArray | None
    findings: dict[str, Any]
    """The evaluation of a model, or the table, as JSON."""


class Note(Protocol):
    """Stores the result of a round, the state after it, and the outcome if there is one.

    It stores all of them or nothing.
    """

    def __call__(
        self, report: RoundReport, state: bytes, outcome: Outcome | None = None, /
    ) -> None:
        """Store them."""


@dataclass(frozen=True)
class RunHistory:
    """A run's stored rounds in order, and the state after the last one."""

    rounds: Sequence[RoundRecord] = ()
    state: bytes = b""


NOTHING = RunHistory()


def run_procedure(
    study: Study, driver: RoundDriver, note: Note, history: RunHistory = NOTHING
) -> Outcome:
    """Drive the run of a study from its next round to its last. Raises RunVoid."""
    if isinstance(study.task, Training):
        return _TrainingProcedure(study, study.task, driver, note, history).run()
    return _open_table(study, study.task, driver, note, history)


def _open_table(
    study: Study,
    task: CountPatients | CountByFeature,
    driver: RoundDriver,
    note: Note,
    history: RunHistory,
) -> Outcome:
    _require_none_void(history.rounds)
    mechanism = next(m for m in study.mechanisms if m.phase != COHORT_FLOOR)
    report = _sum(study, driver, mechanism, 1, b"")
    opened = _required(report, note, b"")
    table = read_table(
        task, study.features, mechanism, opened.values, countries=len(opened.countries)
    )
    outcome = Outcome(participation_of([recorded(report)], study.countries), None, table.to_json())
    note(report, b"", outcome)
    return outcome


class _TrainingProcedure:
    """Trains a model round by round, then evaluates it."""

    def __init__(
        self, study: Study, task: Training, driver: RoundDriver, note: Note, history: RunHistory
    ) -> None:
        self._study, self._task, self._history = study, task, history
        self._driver, self._note = driver, note
        self._rounds = list(history.rounds)

    def run(self) -> Outcome:
        state, mechanism = self._state(), self._mechanism(TRAIN)
        self._require_progress()
        for number in range(state.round_number + 1, mechanism.rounds + 1):
            state = self._round(number, mechanism, state)
        return self._evaluated(state, mechanism.rounds + 1)

    def _state(self) -> OptimiserState:
        if self._history.state:
            return OptimiserState.from_bytes(self._history.state)
        return OptimiserState.start(self._task.initial(self._study.features))

    def _round(self, number: int, mechanism: Mechanism, state: OptimiserState) -> OptimiserState:
        report = _sum(self._study, self._driver, mechanism, number, state.payload)
        self._rounds.append(recorded(report))
        if isinstance(report.outcome, OpenedSum):
            state = self._stepped(mechanism, state, report.outcome)
        else:
            state = skip(state)
        self._note(report, state.to_bytes())
        self._require_progress()
        return state

    def _require_progress(self) -> None:
        last = self._rounds[-MAX_VOID_IN_A_ROW:]
        if len(last) == MAX_VOID_IN_A_ROW and not any(finished.opened for finished in last):
            raise _void(last[-1])

    def _stepped(
        self, mechanism: Mechanism, state: OptimiserState, opened: OpenedSum
    ) -> OptimiserState:
        part = len(opened.countries) / len(self._study.countries)
        return step(self._task, self._study.features, mechanism, state, opened.values, part=part)

    def _evaluated(self, state: OptimiserState, number: int) -> Outcome:
        if self._task.evaluation is None:
            return self._outcome(state, {})
        _require_none_void([finished for finished in self._rounds if finished.number == number])
        mechanism = self._mechanism(EVALUATE)
        model = vector_to_bytes(state.model)
        report = _sum(self._study, self._driver, mechanism, number, model)
        opened = _required(report, self._note, state.to_bytes())
        findings = evaluate(
            self._task,
            self._study.features,
            mechanism,
            opened.values,
            countries=len(opened.countries),
            generator=np.random.default_rng(secrets.randbits(128)),
        )
        self._rounds.append(recorded(report))
        outcome = self._outcome(state, findings.to_json())
        self._note(report, state.to_bytes(), outcome)
        return outcome

    def _outcome(self, state: OptimiserState, findings: dict[str, Any]) -> Outcome:
        return Outcome(participation_of(self._rounds, self._study.countries), state.model, findings)

    def _mechanism(self, phase: str) -> Mechanism:
        return next(m for m in self._study.mechanisms if m.phase == phase)


def _sum(
    study: Study, driver: RoundDriver, mechanism: Mechanism, number: int, model: bytes
) -> RoundReport:
    """Drive a round; it is void if honest countries cannot have sent what it opened."""
    report = driver.sum(number, mechanism.phase, model)
    if isinstance(report.outcome, VoidRound):
        return report
    values, size = report.outcome.values, len(report.outcome.countries)
    reason = impossible_figure(study.task, study.features, mechanism, values, countries=size)
    return replace(report, outcome=VoidRound(reason, ())) if reason else report


def _required(report: RoundReport, note: Note, state: bytes) -> OpenedSum:
    """Return the sum of a round that the run needs; store a void round and raise RunVoid."""
    if isinstance(report.outcome, VoidRound):
        note(report, state)
        raise _void(recorded(report))
    return report.outcome


def _require_none_void(rounds: Sequence[RoundRecord]) -> None:
    """Raise RunVoid if one of these rounds was void: no round's number is used twice."""
    for finished in rounds:
        if not finished.opened:
            raise _void(finished)


def _void(record: RoundRecord) -> RunVoid:
    listed = "; ".join(f"{country}: {cause}" for country, cause in sorted(record.causes.items()))
    named = "see `status` on the nodes named; " if listed else ""
    return RunVoid(
        f"Round {record.number} ({record.phase}) opened no sum",
        why=". ".join(part for part in (record.reason, listed) if part),
        fix=f"{named}a new launch needs new permits, and is charged",
    )
