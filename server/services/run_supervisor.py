"""Supervises unfinished runs: starts another attempt of a run, or abandons it.

Flower does not resume a run. A run of ours is executed by one Flower run after another; each of
them is an attempt, which the daemon numbers and submits. An attempt that is not the current one
changes nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Self

from sqlalchemy import Connection

from governance.audit.events import EventKind
from keys.errors import PratiqueError
from server.errors import CoordinatorFault
from server.flower.bundle import build_bundle
from server.runs.lock import is_run_locked
from server.runs.store import RunRow, RunState
from server.services.context import CoordinatorContext

START_SECONDS = 20.0
"""How long a server app may take to begin; multiplied by the number of fruitless attempts."""
MAX_FRUITLESS_ATTEMPTS = 5
"""How many attempts in a row may end before the run's next step is stored."""

_log = logging.getLogger("pratique.coordinator")


class NextStep(Enum):
    """The next step for an unfinished run."""

    WAIT = auto()
    RETRY = auto()
    ABANDON = auto()


@dataclass(frozen=True)
class AttemptState:
    """The current attempt of an unfinished run, as the daemon sees it."""

    begun: bool
    """The attempt has begun."""
    alive: bool
    """A process that executes the run is alive."""
    lost: bool
    """An attempt that was submitted and has not begun will never begin."""
    fruitless: int
    """Attempts since the run's last stored step."""
    silent: timedelta
    """Time since the run's row last changed."""

    @classmethod
    def of(cls, run: RunRow, *, alive: bool, lost: bool, now: datetime) -> Self:
        """Return the state of a run's current attempt."""
        begun = run.begun == run.attempt > 0
        return cls(begun, alive, lost, run.fruitless, now - run.updated)


def decide(attempt: AttemptState) -> NextStep:
    """Decide the next step for an unfinished run."""
    if attempt.begun and attempt.alive:
        return NextStep.WAIT
    patience = timedelta(seconds=START_SECONDS * max(1, attempt.fruitless))
    if not attempt.begun and not attempt.lost and attempt.silent < patience:
        return NextStep.WAIT
    return NextStep.ABANDON if attempt.fruitless >= MAX_FRUITLESS_ATTEMPTS else NextStep.RETRY


def submit(context: CoordinatorContext, run_id: str, attempt: int) -> int:
    """Submit an attempt to Flower; return the id of the Flower run. Raises CoordinatorFault."""
    bundle = build_bundle(context.home.path / "bundles" / run_id, run_id, attempt)
    flower_run = context.superlink.run(bundle)
    context.runs.set_flower_run(run_id, flower_run)
    return flower_run


def supervise_runs(context: CoordinatorContext, *, runs_lost: bool = False) -> None:
    """Retry or abandon each unfinished run whose attempt has ended or did not begin.

    `runs_lost`: the SuperLink is a new one, and does not know what was submitted to the former one.
    """
    actions: dict[NextStep, Callable[[CoordinatorContext, RunRow], None]] = {
        NextStep.RETRY: _retry,
        NextStep.ABANDON: _abandon,
    }
    for run in context.runs.unfinished():
        alive = is_run_locked(context.home, run.run_id)
        attempt = AttemptState.of(run, alive=alive, lost=runs_lost, now=context.clock())
        if action := actions.get(decide(attempt)):
            action(context, run)
            if not runs_lost:
                stop_flower_run(context, run.flower_run)


def stop_flower_run(context: CoordinatorContext, flower_run: str | None) -> None:
    """Stop a Flower run that is not needed any more; a refusal by Flower is only logged.

    A node may wait for a part of a message that its dead sender never pushed. Flower ends that
    wait when the run is stopped, and otherwise only after a minute.
    """
    try:
        if flower_run is not None:
            context.superlink.stop(int(flower_run))
    except CoordinatorFault as fault:
        _log.warning("Flower's run did not stop", extra={"why": str(fault)})


def _retry(context: CoordinatorContext, run: RunRow) -> None:
    why = run.reason or "its process had ended"
    _log.warning("run carried on", extra={"run": run.run_id, "why": why})

    def log_event(attempt: int, connection: Connection) -> None:
        context.note(
            EventKind.RUN_RESUMED,
            reason=f"attempt {attempt}: {why}"[:600],
            study=run.study,
            run=run.run_id,
            connection=connection,
        )

    try:
        attempt = context.runs.next_attempt(run.run_id, context.clock(), log_event)
        submit(context, run.run_id, attempt)
    except PratiqueError as fault:  # a later look retries, when this attempt has not begun in time
        _log.warning("attempt not submitted", extra={"run": run.run_id, "why": str(fault)})


def _abandon(context: CoordinatorContext, run: RunRow) -> None:
    last = run.reason or "its process was ended from outside, or never started"
    reason = (
        f"{run.fruitless} attempts in a row did not reach the next step. The last one: {last} "
        "To do: read superexec.log in the coordinator's home; a new launch needs new permits, and "
        "is charged"
    )
    context.runs.move(run.run_id, RunState.FAILED, context.clock(), reason)
