"""One attempt to carry a run from its documents to its release, over any carrier.

This is what the server app does. It reads what the run is about from the verified documents, not
from the bundle; it begins where the last attempt stopped, and keeps each step before the next. What
concerns the run ends it, in a state with a reason; what concerns this attempt only (the daemon is
gone, the disk is full, Flower fails) ends the attempt, and the daemon begins another.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from governance.audit.log import LogWriter
from governance.documents.study import Study
from governance.errors import StorageFault
from governance.runtime.database import open_database
from governance.runtime.local_rpc import LocalRpcFault
from governance.trust.view import TrustedView
from keys.composite import Suite
from keys.errors import PratiqueError
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.tasks.layout import vector_to_bytes
from protocols.wire.document_versions import DocumentVersions
from server.errors import OperationFault
from server.flower.carrier import Carrier
from server.home import CoordinatorHome
from server.published_view import published
from server.runs.lock import carried_alone
from server.runs.procedure import (
    Outcome,
    RunHistory,
    RunVoid,
    lead,
)
from server.runs.progress import RunProgress, StoredRun, Superseded
from server.runs.rounds import RoundDriver, RoundReport, SetUpFailed
from server.runs.run_documents import RunDocuments, require_unmoved
from server.runs.store import RunState, RunStore
from server.state.tables import MIGRATIONS

PASSING = (LocalRpcFault, StorageFault)
"""Faults of the machine that carries a run, and not of the run."""

_log = logging.getLogger("pratique.run")


class RunServices(Protocol):
    """What conducting a run needs of whoever holds the keys."""

    def sign(self, message: bytes, suite: Suite) -> bytes:
        """Sign 32 bytes with the coordinator's identity key, as the agreement asks."""

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        """Take what the run made, to be signed and released; the run is finished then."""


def carry_run(
    home: CoordinatorHome,
    run_id: str,
    attempt: int,
    carrier: Carrier,
    services: RunServices,
    *,
    seconds: float,
) -> None:
    """Carry a run on to its end, as its attempt of this number. Raises what ended either.

    `seconds`: how long a country may take over a message before it is asked again. Raises
    Superseded or OperationFault, and changes nothing, where it may not: the run is over, another
    attempt is the current one, or another process carries it.
    """
    engine = open_database(home.database, MIGRATIONS)
    log = LogWriter(engine, home.settings().log_origin)
    progress = RunProgress(engine, RunStore(engine).get(run_id).run_id, attempt, log)
    with carried_alone(home, run_id):
        progress.begin(now())
        try:
            _RunAttempt(home, run_id, progress, carrier, services).go(seconds)
        except Superseded:
            raise
        except PASSING as fault:
            _lose(progress, str(fault))
            raise
        except PratiqueError as fault:
            void = isinstance(fault, RunVoid | SetUpFailed)
            progress.end(RunState.VOID if void else RunState.FAILED, now(), str(fault))
            raise
        except BaseException as fault:  # a fault of ours or Flower's, or the process is told to end
            _lose(progress, f"{type(fault).__name__}: {fault}")
            raise


def now() -> datetime:
    """Return the time of the machine, UTC."""
    return datetime.now(UTC)


def _lose(progress: RunProgress, reason: str) -> None:
    with suppress(PratiqueError):  # the note is for the operator; the daemon sees by itself
        progress.lose(reason, now())


class _RunAttempt:
    def __init__(
        self,
        home: CoordinatorHome,
        run_id: str,
        progress: RunProgress,
        carrier: Carrier,
        services: RunServices,
    ) -> None:
        self._home, self._run_id, self._progress = home, run_id, progress
        self._carrier, self._services = carrier, services

    def go(self, seconds: float) -> None:
        kept = self._progress.kept()
        if kept.outcome is None:
            outcome = self._led(kept, seconds)
            made, model = outcome_json(outcome), _model_bytes(outcome)
        else:
            made, model = dict(kept.outcome), kept.model
        self._services.release(kept.study, self._run_id, made, model)

    def _led(self, kept: StoredRun, seconds: float) -> Outcome:
        view = published(self._home, now())
        study = _study(view, kept.study)
        _require_keys(view, study)
        ground, suite = self._ground(kept, view, study), view.agreement.signatures
        run = CoordinatorRun(
            study.run_terms(view.agreement, bytes.fromhex(self._run_id), study.countries),
            peers=ground.peers(suite),
            sign=partial(self._services.sign, suite=suite),
            versions=ground.document_versions,
            published=partial(self._published, ground.document_versions),
        )
        driver = RoundDriver(
            run,
            study.countries,
            self._carrier,
            seconds=seconds,
            keep_closed=lambda number, chosen: self._progress.keep_closed(number, chosen, now()),
            closed=kept.closed,
        )
        if kept.replies:
            driver.take_up(kept.replies)
        else:
            self._progress.keep_set_up(driver.set_up(), now())
        return lead(study, driver, self._note, RunHistory(kept.rounds, kept.model))

    def _ground(self, kept: StoredRun, view: TrustedView, study: Study) -> RunDocuments:
        """Return what the run stands on: what its first attempt kept, as long as it holds."""
        found = RunDocuments.of(view, study.countries)
        if kept.ground is None:
            self._progress.keep_ground(found.model_dump(mode="json"))
            return found
        ground = RunDocuments.model_validate(kept.ground)
        require_unmoved(ground, found)
        return ground

    def _published(self, known: DocumentVersions) -> DocumentVersions:
        """Return what is published by now; what was when the run began, where nobody can tell."""
        try:
            return published(self._home, now()).verified
        except PratiqueError:  # it concerns this look at the documents, and neither country nor run
            return known

    def _note(self, report: RoundReport, state: bytes, outcome: Outcome | None = None, /) -> None:
        if outcome is None:
            self._progress.keep_round(report, state, now())
        else:
            made = outcome_json(outcome)
            self._progress.keep_round(report, _model_bytes(outcome), now(), made)
        _log.info("round", extra={"round": report.number, "phase": report.phase})


def _study(view: TrustedView, digest: str) -> Study:
    study = view.study(digest)
    if study is None:
        raise OperationFault("The study of this run is not among the published ones")
    return study


def _require_keys(view: TrustedView, study: Study) -> None:
    keys = {country: view.node_keys(country) for country in study.countries}
    if unknown := sorted(country for country, node in keys.items() if node is None):
        raise OperationFault(
            f"The node of {', '.join(unknown)} has no published keys",
            why="its officer has not signed them, or its documents have expired",
            fix="ask its officer to run `pratique-officer sign` or `renew`",
        )
    view.require_suite(study.countries)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return what a run made, less its model, as JSON."""
    return {"part": outcome.part.model_dump(mode="json"), "findings": outcome.findings}


def _model_bytes(outcome: Outcome) -> bytes:
    return b"" if outcome.model is None else vector_to_bytes(outcome.model)
