"""Carries unfinished runs on: whether a run needs another attempt, and who submits it.

Flower does not resume. A run of ours is carried by one Flower run after another; each is an
attempt that the daemon numbers and submits. An attempt that is not the current one carries nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from governance.audit.events import EventKind
from keys.errors import PratiqueError
from server.errors import OperationFault
from server.flower.bundle import build_bundle
from server.runs.lock import is_carried
from server.runs.store import RunState
from server.services.context import CoordinatorContext

START_SECONDS = 20.0
"""How long a server app may take to begin, times the attempts that got nowhere so far."""
MOST_FRUITLESS = 5
"""So many attempts in a row may end before the run's next step is kept."""

_log = logging.getLogger("pratique.coordinator")


class NextStep(Enum):
    """What to do about a run."""

    LEAVE = auto()
    CARRY_ON = auto()
    GIVE_UP = auto()


@dataclass(frozen=True)
class AttemptState:
    """An unfinished run as the daemon sees it.

    `begun`: its current attempt has begun; `carried`: a process that does so is alive; `lost`: what
    was submitted and has not begun never will; `silent`: since when nothing was noted of it.
    """

    begun: bool
    carried: bool
    lost: bool
    fruitless: int
    silent: timedelta

    @classmethod
    def of(cls, row: Any, *, carried: bool, lost: bool, now: datetime) -> "AttemptState":
        """Return the standing of a run's row."""
        begun = row.begun == row.attempt > 0
        return cls(begun, carried, lost, row.fruitless, now - row.updated)


def decide(run: AttemptState) -> NextStep:
    """Say what is to be done about an unfinished run."""
    if run.begun and run.carried:
        return NextStep.LEAVE
    patience = timedelta(seconds=START_SECONDS * max(1, run.fruitless))
    if not run.begun and not run.lost and run.silent < patience:
        return NextStep.LEAVE
    return NextStep.GIVE_UP if run.fruitless >= MOST_FRUITLESS else NextStep.CARRY_ON


def submit(context: CoordinatorContext, run_id: str, attempt: int) -> int:
    """Submit an attempt and return the Flower run that carries it. Raises OperationFault."""
    bundle = build_bundle(context.home.path / "bundles" / run_id, run_id, attempt)
    flower_run = context.superlink.run(bundle)
    context.runs.carried_by(run_id, flower_run)
    return flower_run


def carry_on(context: CoordinatorContext, *, lost: bool = False) -> None:
    """Do about every unfinished run what is to be done.

    `lost`: the SuperLink is a new one, which knows of nothing that was submitted before.
    """
    acts: dict[NextStep, Callable[[CoordinatorContext, Any], None]] = {
        NextStep.CARRY_ON: _begin_another,
        NextStep.GIVE_UP: _give_up,
    }
    for row in context.runs.unfinished():
        carried = is_carried(context.home, row.run_id)
        standing = AttemptState.of(row, carried=carried, lost=lost, now=context.clock())
        if act := acts.get(decide(standing)):
            act(context, row)
            if not lost:
                stop_carrier(context, row.flower_run)


def stop_carrier(context: CoordinatorContext, flower_run: str | None) -> None:
    """Stop a Flower run that carries nothing any more, as far as Flower does.

    A node may be waiting for a part of a message that its dead sender never pushed: Flower ends
    that wait with the run, and by itself only after a minute.
    """
    try:
        if flower_run is not None:
            context.superlink.stop(int(flower_run))
    except OperationFault as fault:
        _log.warning("Flower's run did not stop", extra={"why": str(fault)})


def _begin_another(context: CoordinatorContext, row: Any) -> None:
    why = row.reason or "its process had ended"
    _log.warning("run carried on", extra={"run": row.run_id, "why": why})

    def noted(attempt: int, connection: Any) -> None:
        details = {"study": row.study, "run": row.run_id, "connection": connection}
        context.note(EventKind.RUN_RESUMED, reason=f"attempt {attempt}: {why}"[:600], **details)

    try:
        attempt = context.runs.next_attempt(row.run_id, context.clock(), noted)
        submit(context, row.run_id, attempt)
    except PratiqueError as fault:  # it is tried again when this attempt has not begun in time
        _log.warning("attempt not submitted", extra={"run": row.run_id, "why": str(fault)})


def _give_up(context: CoordinatorContext, row: Any) -> None:
    last = row.reason or "its process was ended from outside, or never started"
    reason = (
        f"{row.fruitless} attempts in a row to carry it got no step further. The last one: {last} "
        "To do: read superexec.log in the coordinator's home; a new launch needs new permits, and "
        "is charged"
    )
    context.runs.move(row.run_id, RunState.FAILED, context.clock(), reason)
