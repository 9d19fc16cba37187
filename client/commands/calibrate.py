"""`pratique-node calibrate`: fits a released model to the node's own records, on this node only.

The result must be signed by the coordinator that the documents name, and its study published. The
officer's permit must be in force and allow it, by the same decision as for a contribution. Then the
records are read as for the study, without opted-out patients. After that all is decided again, as
the officer may have withdrawn meanwhile. The use of the records is logged before the file is
written: study, run and documents, and no value or count.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from client.commands.calibration_file import (
    FILE,
    Calibration,
    Written,
    make_private_folder,
    require_outside,
    require_writable,
    write_calibration,
)
from client.commands.calibration_permission import require_permitted
from client.documents.store import CurrentDocuments
from client.errors import RecordFault
from client.parts import NodeParts
from client.state.decision_log import Subject
from client.tasks.local_fit import LocalFit, fit_locally
from governance.audit.events import EventKind, Outcome
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.errors import DocumentFault, ResultFault
from governance.policy.assessment import Assessment
from governance.results.result import (
    RESULT_FILE,
    Result,
    read_result_file,
    read_weights,
    verified_result,
)
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.errors import ReasonCode, Refusal
from protocols.tasks import Training
from protocols.tasks.features import FloatArray
from protocols.wire.encoding import digest

UNTRUSTED = "The result cannot be read, or is not as the coordinator signed it"
RECORDS = "The records of this node cannot be used for it"
"""The log's reason for a fault whose own text may quote a file or depend on records."""


class ModelCalibration:
    """One calibration of a released model by a node."""

    def __init__(
        self,
        parts: NodeParts,
        source: Path,
        *,
        out: Path | None,
        replace: bool,
        take_over: Callable[[], None],
    ) -> None:
        """`source` is the folder of a result, or its `result.json`; `out` the file to write.

        `take_over` stores what the officer left in the node's folder, or raises NodeFault.
        """
        self._parts, self._out, self._replace = parts, out, replace
        self._take_over = take_over
        self._folder = source.parent if source.name == RESULT_FILE else source
        self._subject = Subject()

    def run(self) -> Written:
        """Calibrate, log and write the file. Raises ResultFault, Refusal, RecordFault, NodeFault.

        DocumentFault if the documents on this node are not up to date. Unless it returns, no file
        was written.
        """
        with self._refusals_logged():
            self._take_over()
            documents = self._documents()
            result, weights = self._read(documents)
            study = self._study(result, documents)
            require_permitted(self._parts, documents, study)
        path = self._free_path(study)
        with self._refusals_logged():
            fit = self._fit(study, result, weights)
            self._take_over()
            documents = self._documents()
            assessment, permit = require_permitted(self._parts, documents, study)
        calibration = self._calibration(study, result, permit, fit)
        self._log_use(assessment, permit, documents)
        write_calibration(path, calibration, replace=self._replace)
        return Written(path, calibration, self._unconfirmed())

    def _documents(self) -> CurrentDocuments:
        try:
            return self._parts.documents.current(self._parts.clock())
        except DocumentFault as fault:
            raise DocumentFault(
                "The documents of this node are not up to date",
                why=fault.sentence,
                fix="run `pratique-node up`, which fetches them; if it runs, run `pratique-node "
                "doctor`",
            ) from fault

    def _read(self, documents: CurrentDocuments) -> tuple[Result, FloatArray]:
        """Return the verified result and its model."""
        view, data = documents.view, read_result_file(self._folder)
        key = VerifyKey.from_text(view.agreement.coordinator.document_key)
        listed = digest(data) in view.releases
        result = verified_result(data, self._folder, [key], listed=listed)
        self._subject = Subject(study=result.study, run=result.run, body=digest(data))
        return result, read_weights(self._folder, result)

    def _study(self, result: Result, documents: CurrentDocuments) -> Study:
        """Return the study of a result. Raises Refusal unless the result is of it, and in time."""
        study = documents.view.study(result.study)
        if study is None:
            raise Refusal(
                ReasonCode.UNKNOWN_STUDY,
                "The study of this result is not among the published documents of this node",
                why=f"the result names the study {result.study}",
                fix="start the node, which fetches new documents; or ask the coordinator",
            )
        problem = _difference(result, study) or _too_late(result, documents.view.now)
        if problem:
            raise Refusal(
                ReasonCode.STALE,
                "The result cannot be used for a calibration",
                why=problem,
                fix="ask the coordinator for the result of the study",
            )
        return study

    def _fit(self, study: Study, result: Result, weights: FloatArray) -> LocalFit:
        self._parts.record_store.refresh()
        prepared = self._parts.tasks.prepared(study, result.run)
        numbered = self._parts.record_store.records().numbered
        country = self._parts.settings.country
        fit = fit_locally(prepared.assignment, weights, result.baselines, country)
        return fit.on_records(prepared.version, numbered=numbered)

    def _calibration(
        self, study: Study, result: Result, permit: Permit, fit: LocalFit
    ) -> Calibration:
        return Calibration(
            study_id=study.id,
            study=study.digest,
            run=result.run,
            result=self._subject.body or "",
            model=result.model or "",
            permit=permit.digest,
            country=self._parts.settings.country,
            calibrated=self._parts.now().replace(microsecond=0),
            **fit.fields(),
        )

    def _free_path(self, study: Study) -> Path:
        """Return where to write; decided before a record is read. Raises NodeFault, KeyFault."""
        path = self._out
        if path is None:
            path = self._parts.home.calibrations / study.id / FILE
            make_private_folder(path.parent, self._parts.home.path)
        require_outside(path, self._parts.home)
        require_writable(path, replace=self._replace)
        return path

    def _unconfirmed(self) -> int:
        """Return how many entries of the opt-out list match nobody, and are not confirmed."""
        report = self._parts.record_store.records().report
        return len(self._parts.opt_outs.unconfirmed(self._parts.settings, report))

    def _log_use(self, assessment: Assessment, permit: Permit, documents: CurrentDocuments) -> None:
        self._parts.decisions.event(
            EventKind.MODEL_CALIBRATED,
            self._subject,
            policies=assessment.clauses,
            documents=documents.versions,
            reason=f"under the permit {permit.digest}",
        )

    @contextmanager
    def _refusals_logged(self) -> Iterator[None]:
        """Log a fault of the block, without what depends on records; the fault holds anyway."""
        try:
            yield
        except PratiqueError as fault:
            with suppress(PratiqueError):
                self._parts.decisions.event(
                    EventKind.CALIBRATION_REFUSED,
                    self._subject,
                    outcome=Outcome.REFUSED,
                    reason=_logged_reason(fault),
                )
            raise


def _logged_reason(fault: PratiqueError) -> str:
    if isinstance(fault, RecordFault):
        return RECORDS
    if isinstance(fault, ResultFault):
        return UNTRUSTED
    clause = f" ({fault.clause})" if isinstance(fault, Refusal) and fault.clause else ""
    return f"{fault.sentence}{clause}"


def _difference(result: Result, study: Study) -> str:
    """Return in what the result is not of this study; empty if it is."""
    if not isinstance(study.task, Training):
        return f"its study computes `{study.task.kind}`, which releases no model"
    stated = {
        "the id": (result.study_id, study.id),
        "the agreement": (result.agreement, study.agreement),
        "the task": (result.task, study.task),
        "the features": (result.features, study.features),
    }
    other = [name for name, (released, published) in stated.items() if released != published]
    return f"it differs from its published study in {' and '.join(other)}" if other else ""


def _too_late(result: Result, now: datetime) -> str:
    """Return why the result is kept no longer; empty if it still is."""
    try:
        end = datetime.strptime(result.keep_until, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "it does not state until when it may be kept"
    if now < end:
        return ""
    return f"it could be kept until {end:%Y-%m-%d}; since then it should be deleted"
