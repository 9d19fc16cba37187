"""What a run does once it is set up: train and evaluate a model, or open one table.

A thin layer between the rounds, which know nothing of learning, and the learning, which knows
nothing of rounds. Round numbers rise through the whole run, so that training and evaluation never
share one.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from governance.documents.study import Study
from protocols.mechanism import Mechanism
from protocols.private_sum.opening import OpenedSum, VoidRound
from protocols.tasks import CountByFeature, CountPatients, TrainGlm
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import COHORT_FLOOR, EVALUATE, TRAIN
from server.errors import OperationFault
from server.learning.evaluate import evaluate
from server.learning.optimiser import OptimiserState, skip, step
from server.learning.tables import read_table
from server.rounds import Conductor, RoundReport

MOST_VOID_IN_A_ROW = 3

Note = Callable[[RoundReport, bytes], None]
"""Told of each round and of the state that the coordinator keeps after it."""


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


def lead(study: Study, conductor: Conductor, note: Note) -> Outcome:
    """Lead the run of a study from its first round to its last. Raises RunVoid."""
    if isinstance(study.task, TrainGlm):
        return _Training(study, study.task, conductor, note).run()
    return _open_table(study, study.task, conductor, note)


def _open_table(
    study: Study, task: CountPatients | CountByFeature, conductor: Conductor, note: Note
) -> Outcome:
    mechanism = next(m for m in study.mechanisms if m.phase != COHORT_FLOOR)
    report = conductor.sum(1, mechanism.phase, b"")
    note(report, b"")
    opened = _required(report)
    table = read_table(
        task, study.features, mechanism, opened.values, countries=len(opened.countries)
    )
    return Outcome(opened.countries, 0, None, table.to_json())


class _Training:
    def __init__(self, study: Study, task: TrainGlm, conductor: Conductor, note: Note) -> None:
        self._study, self._task = study, task
        self._conductor, self._note = conductor, note
        self._void = self._void_in_a_row = 0

    def run(self) -> Outcome:
        state = OptimiserState.start(self._task.dimension(self._study.features))
        mechanism = self._mechanism(TRAIN)
        for number in range(1, mechanism.rounds + 1):
            state = self._round(number, mechanism, state)
        return self._evaluated(state, mechanism.rounds + 1)

    def _round(self, number: int, mechanism: Mechanism, state: OptimiserState) -> OptimiserState:
        report = self._conductor.sum(number, TRAIN, state.payload)
        if isinstance(report.outcome, OpenedSum):
            self._void_in_a_row = 0
            state = step(self._task, self._study.features, mechanism, state, report.outcome.values)
        else:
            self._count_void()
            state = skip(state)
        self._note(report, state.to_bytes())
        if self._void_in_a_row == MOST_VOID_IN_A_ROW:
            raise _void(report)
        return state

    def _count_void(self) -> None:
        self._void += 1
        self._void_in_a_row += 1

    def _evaluated(self, state: OptimiserState, number: int) -> Outcome:
        if self._task.evaluation is None:
            return Outcome(self._study.countries, self._void, state.model, {})
        mechanism = self._mechanism(EVALUATE)
        report = self._conductor.sum(number, EVALUATE, vector_to_bytes(state.model))
        self._note(report, state.to_bytes())
        opened = _required(report)
        findings = evaluate(
            self._task,
            self._study.features,
            mechanism,
            opened.values,
            countries=len(opened.countries),
            generator=np.random.default_rng(secrets.randbits(128)),
        )
        return Outcome(opened.countries, self._void, state.model, findings.to_json())

    def _mechanism(self, phase: str) -> Mechanism:
        return next(m for m in self._study.mechanisms if m.phase == phase)


def _required(report: RoundReport) -> OpenedSum:
    if isinstance(report.outcome, VoidRound):
        raise _void(report)
    return report.outcome


def _void(report: RoundReport) -> RunVoid:
    reason = report.outcome.reason if isinstance(report.outcome, VoidRound) else ""
    listed = "; ".join(f"{country}: {cause}" for country, cause in sorted(report.causes.items()))
    return RunVoid(
        f"Round {report.number} ({report.phase}) opened nothing",
        why=". ".join(part for part in (reason, listed) if part),
        fix="see `status` on the nodes named; a new launch needs new permits, and is charged",
    )
