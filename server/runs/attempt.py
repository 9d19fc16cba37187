"""One attempt of a run, from its documents to its release, over any carrier.

The server app executes it. It reads the study from the verified documents, not from the bundle. It
begins where the last attempt stopped, and stores each step before the next one. A fault of the run
ends the run, in a state with a reason. A fault of this attempt only (the daemon is gone, the disk
is full, Flower fails) ends the attempt, and the daemon starts another one.
"""

import logging
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from governance.audit.log import LogWriter
from governance.documents.study import Study
from governance.errors import StorageFault
from governance.runtime.database import open_database
from governance.runtime.local_rpc import LocalRpcFault
from governance.trust.view import TrustedView
from keys.clock import utc_now
from keys.composite import Suite
from keys.errors import PratiqueError
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.tasks.layout import vector_to_bytes
from protocols.wire.document_versions import DocumentVersions
from server.errors import CoordinatorFault
from server.flower.carrier import Carrier
from server.home import CoordinatorHome
from server.published_view import read_published_view
from server.runs.lock import lock_run
from server.runs.procedure import (
    Outcome,
    RunHistory,
    RunVoid,
    run_procedure,
)
from server.runs.progress import RunProgress, StoredRun, Superseded
from server.runs.rounds import RoundDriver, RoundReport, SetUpFailed
from server.runs.run_documents import RunDocuments, require_resumable
from server.runs.store import RunState, RunStore
from server.state.tables import MIGRATIONS

PASSING = (LocalRpcFault, StorageFault)
"""Faults of the machine or the daemon, not of the run."""

_log = logging.getLogger("pratique.run")


class RunServices(Protocol):
    """What an attempt needs from the daemon, which has the keys."""

    def sign(self, message: bytes, suite: Suite) -> bytes:
        """Return the signature of 32 bytes by the coordinator's identity key, in this suite."""

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        """Sign and release the run's outcome and model; this finishes the run."""


def run_attempt(
    home: CoordinatorHome,
    run_id: str,
    attempt: int,
    carrier: Carrier,
    services: RunServices,
    *,
    seconds: float,
) -> None:
    """Execute the attempt with this number, to the end of the run. Raises what ended it.

    `seconds`: how long a country may spend on one message before it is asked again. Raises
    Superseded or CoordinatorFault, and changes nothing, if the attempt may not execute the run: the
    run is over, another attempt is the current one, or another process executes the run.
    """
    engine = open_database(home.database, MIGRATIONS)
    log = LogWriter(engine, home.settings().log_origin)
    progress = RunProgress(engine, RunStore(engine).get(run_id).run_id, attempt, log)
    with lock_run(home, run_id):
        progress.begin(utc_now())
        try:
            _RunAttempt(home, run_id, progress, carrier, services).execute(seconds)
        except Superseded:
            raise
        except PASSING as fault:
            _note_end(progress, str(fault))
            raise
        except PratiqueError as fault:
            void = isinstance(fault, RunVoid | SetUpFailed)
            progress.end(RunState.VOID if void else RunState.FAILED, utc_now(), str(fault))
            raise
        except BaseException as fault:  # a fault of this program or Flower, or a signal to end
            _note_end(progress, f"{type(fault).__name__}: {fault}")
            raise


def _note_end(progress: RunProgress, reason: str) -> None:
    with suppress(PratiqueError):  # the reason is for the operator; the daemon does not need it
        progress.note_end_of_attempt(reason, utc_now())


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

    def execute(self, seconds: float) -> None:
        """Drive the run to its outcome, unless an outcome is stored, and release it."""
        stored = self._progress.load()
        if stored.outcome is None:
            outcome = self._drive(stored, seconds)
            values, model = outcome_json(outcome), _model_bytes(outcome)
        else:
            values, model = dict(stored.outcome), stored.model
        self._services.release(stored.study, self._run_id, values, model)

    def _drive(self, stored: StoredRun, seconds: float) -> Outcome:
        view = read_published_view(self._home, utc_now())
        study = _study(view, stored.study)
        _require_keys(view, study)
        driver = RoundDriver(
            self._coordinator_run(stored, view, study),
            study.countries,
            self._carrier,
            seconds=seconds,
            keep_closed=lambda number, countries: self._progress.keep_closed(
                number, countries, utc_now()
            ),
            closed=stored.closed,
        )
        if stored.replies:
            driver.resume(stored.replies)
        else:
            self._progress.keep_set_up(driver.set_up(), utc_now())
        history = RunHistory(stored.rounds, stored.model)
        return run_procedure(study, driver, self._note, history)

    def _coordinator_run(
        self, stored: StoredRun, view: TrustedView, study: Study
    ) -> CoordinatorRun:
        documents = self._documents(stored, view, study)
        suite = view.agreement.signatures
        return CoordinatorRun(
            study.run_terms(
                view.agreement,
                bytes.fromhex(self._run_id),
                study.countries,
                permitted_minimum=view.permitted_minimum(study),
            ),
            peers=documents.peers(suite),
            sign=partial(self._services.sign, suite=suite),
            versions=documents.document_versions,
            published=partial(self._published, documents.document_versions),
        )

    def _documents(self, stored: StoredRun, view: TrustedView, study: Study) -> RunDocuments:
        """Return the documents that the first attempt stored, if the run may still use them."""
        current = RunDocuments.of(view, study.countries)
        if stored.documents is None:
            self._progress.keep_documents(current.model_dump(mode="json"))
            return current
        documents = RunDocuments.model_validate(stored.documents)
        require_resumable(documents, current)
        return documents

    def _published(self, known: DocumentVersions) -> DocumentVersions:
        """Return the published versions; those of the run's beginning if they cannot be read."""
        try:
            return read_published_view(self._home, utc_now()).verified
        except PratiqueError:  # a fault of reading the documents is not a fault of country or run
            return known

    def _note(self, report: RoundReport, state: bytes, outcome: Outcome | None = None, /) -> None:
        if outcome is None:
            self._progress.keep_round(report, state, utc_now())
        else:
            values = outcome_json(outcome)
            self._progress.keep_round(report, _model_bytes(outcome), utc_now(), values)
        _log.info("round", extra={"round": report.number, "phase": report.phase})


def _study(view: TrustedView, digest: str) -> Study:
    study = view.study(digest)
    if study is None:
        raise CoordinatorFault(
            "The study of this run is not published",
            why="the documents contain no study with the digest of the run",
            fix="read the coordinator's log: `log list` shows what was published",
        )
    return study


def _require_keys(view: TrustedView, study: Study) -> None:
    keys = {country: view.node_keys(country) for country in study.countries}
    if unknown := sorted(country for country, node in keys.items() if node is None):
        raise CoordinatorFault(
            f"The node of {', '.join(unknown)} has no published keys",
            why="its officer has not signed them, or its documents have expired",
            fix="ask its officer to run `pratique-officer sign` or `renew`",
        )
    view.require_signature_algorithms(study.countries)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return a run's outcome as JSON, without its model."""
    return {"part": outcome.part.model_dump(mode="json"), "findings": outcome.findings}


def _model_bytes(outcome: Outcome) -> bytes:
    return b"" if outcome.model is None else vector_to_bytes(outcome.model)
