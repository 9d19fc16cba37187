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
from protocols.numerics.mechanism import Mechanism
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.tasks import CountByFeature, CountPatients, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import COHORT_FLOOR, EVALUATE, TRAIN
from server.errors import OperationFault
from server.learning.evaluate import evaluate
from server.learning.optimiser import OptimiserState, skip, step
from server.learning.release import ResultPart
from server.learning.tables import read_table
from server.runs.participation import part_taken
from server.runs.rounds import (
    RoundDriver,
    RoundRecord,
    RoundReport,
    recorded,
)

MOST_VOID_IN_A_ROW = 3


class RunVoid(OperationFault):
    """A run that opened too little to release anything; what was charged stays charged."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to release, and which countries are in it."""

    part: ResultPart
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
class RunHistory:
    """What a run has behind it: its rounds in order, and the state kept after the last one."""

    rounds: Sequence[RoundRecord] = ()
    state: bytes = b""


NOTHING = RunHistory()


def lead(study: Study, driver: RoundDriver, note: Note, history: RunHistory = NOTHING) -> Outcome:
    """Lead the run of a study from its next round to its last. Raises RunVoid."""
    if isinstance(study.task, Training):
        return _Training(study, study.task, driver, note, history).run()
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
    report = driver.sum(1, mechanism.phase, b"")
    opened = _required(report, note, b"")
    table = read_table(
        task, study.features, mechanism, opened.values, countries=len(opened.countries)
    )
    outcome = Outcome(part_taken([recorded(report)], study.countries), None, table.to_json())
    note(report, b"", outcome)
    return outcome


class _Training:
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
        report = self._driver.sum(number, TRAIN, state.payload)
        self._rounds.append(recorded(report))
        if isinstance(report.outcome, OpenedSum):
            state = self._stepped(mechanism, state, report.outcome)
        else:
            state = skip(state)
        self._note(report, state.to_bytes())
        self._require_progress()
        return state

    def _require_progress(self) -> None:
        last = self._rounds[-MOST_VOID_IN_A_ROW:]
        if len(last) == MOST_VOID_IN_A_ROW and not any(one.opened for one in last):
            raise _void(last[-1])

    def _stepped(
        self, mechanism: Mechanism, state: OptimiserState, opened: OpenedSum
    ) -> OptimiserState:
        part = len(opened.countries) / len(self._study.countries)
        return step(self._task, self._study.features, mechanism, state, opened.values, part=part)

    def _evaluated(self, state: OptimiserState, number: int) -> Outcome:
        if self._task.evaluation is None:
            return self._outcome(state, {})
        _require_none_void([one for one in self._rounds if one.number == number])
        mechanism = self._mechanism(EVALUATE)
        report = self._driver.sum(number, EVALUATE, vector_to_bytes(state.model))
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
        return Outcome(part_taken(self._rounds, self._study.countries), state.model, findings)

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
