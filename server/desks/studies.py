"""Studies on the coordinator's side: check, propose, list, launch, watch, stop, release."""

import base64
import logging
import secrets
from collections.abc import Mapping
from threading import Lock
from typing import Any

from governance.audit.events import DocumentVersions, EventKind
from governance.documents.reading import read_document
from governance.documents.study import Study
from governance.policy.cedar import Act
from governance.trust.view import TrustedView
from protocols.encoding import digest
from protocols.signed import CONTEXT_BYTES
from protocols.tasks import TASK_KINDS
from server.budget import period_shares
from server.bundle import build_bundle
from server.errors import OperationFault
from server.learning.release import RESULT_FILE
from server.office import Office
from server.releases import make_release
from server.runs import RunState
from server.studies import (
    CountryCheck,
    check,
    complete,
    find,
    require_launchable,
    require_proposable,
)

RUN_ID_BYTES = 16
_log = logging.getLogger("pratique.studies")


class Studies:
    """Everything about studies and their runs."""

    def __init__(self, office: Office) -> None:
        self._office, self._launching = office, Lock()

    def check(self, text: str, source: str) -> dict[str, Any]:
        """Return the completed study and what each country's rules say to it."""
        view = self._office.view()
        study = self._read(text, source, view)
        return _checked(study, self._checks(study, view, Act.PROPOSE))

    def propose(self, text: str, source: str) -> dict[str, Any]:
        """Sign and publish a study; refused where the agreement itself forbids it."""
        office, view = self._office, self._office.view()
        study = self._read(text, source, view)
        checks = self._checks(study, view, Act.PROPOSE)
        require_proposable(checks)
        if any(known.id == study.id and known != study for known in view.studies.values()):
            raise OperationFault(
                f"There is another study with the id {study.id!r}",
                why="what the countries were shown under an id does not change",
                fix="choose a new id",
            )
        keys = office.keys
        office.repository.add_study(
            study, office.clock(), documents=keys.documents, online=keys.online
        )
        office.note(EventKind.STUDY_PROPOSED, study=study.digest, subject=study.id)
        return _checked(study, checks)

    def list(self) -> list[dict[str, Any]]:
        """Return every published study with its answers and its newest run."""
        view = self._office.view()
        return [self._listed(study, view) for study in view.studies.values()]

    def launch(self, name: str) -> dict[str, str]:
        """Start a run of a permitted study; returns its run id and Flower's."""
        office, view = self._office, self._office.view()
        study = find(view, name)
        require_launchable(self._checks(study, view, Act.CONTRIBUTE))
        self._require_nodes(study)
        run_id = secrets.token_hex(RUN_ID_BYTES)
        with self._launching:  # of two at once, the second finds the study running
            self._require_idle(study)
            office.runs.create(run_id, study.digest, office.clock())
        bundle = build_bundle(office.home.path / "bundles" / run_id, run_id)
        try:
            flower_run = office.superlink.run(bundle)
        except OperationFault as fault:
            office.runs.move(run_id, RunState.FAILED, office.clock(), str(fault))
            raise
        office.runs.carried_by(run_id, flower_run)
        office.note(
            EventKind.STUDY_LAUNCHED, study=study.digest, run=run_id, documents=_versions(view)
        )
        return {"study": study.id, "run": run_id, "flower_run": str(flower_run)}

    def status(self, name: str) -> dict[str, Any]:
        """Return where the newest run of a study stands, round by round."""
        office, view = self._office, self._office.view()
        study = find(view, name)
        row = office.runs.latest_of(study.digest)
        if row is None:
            raise OperationFault(
                f"The study {study.id} was never launched", fix=f"`study launch {study.id}`"
            )
        return {
            "study": study.id,
            "title": study.title,
            "run": row.run_id,
            "flower_run": row.flower_run,
            "state": row.state,
            "reason": row.reason,
            "over": RunState(row.state).over,
            "round": row.round,
            "rounds": sum(m.rounds for m in study.mechanisms if m.scope == "shared"),
            "epsilon": study.privacy.epsilon,
            "delta": study.privacy.delta,
            "ledgers": period_shares(view, study, office.runs.all(), office.clock()),
            "online": {c: office.seats.online().get(c, False) for c in study.countries},
            "history": office.runs.rounds_of(row.run_id),
        }

    def stop(self, name: str) -> dict[str, Any]:
        """Stop the running run of a study; what was charged stays charged."""
        office, study = self._office, find(self._office.view(), name)
        row = office.runs.latest_of(study.digest)
        if row is None or RunState(row.state).over:
            raise OperationFault(f"The study {study.id} is not running")
        office.runs.move(row.run_id, RunState.STOPPED, office.clock(), "stopped by the coordinator")
        self._stop_carrier(row.flower_run)
        office.note(EventKind.STUDY_STOPPED, study=study.digest, run=row.run_id)
        return {"study": study.id, "run": row.run_id}

    def _stop_carrier(self, flower_run: str | None) -> None:
        """Whatever becomes of it, a run that is over releases nothing."""
        try:
            if flower_run is not None:
                self._office.superlink.stop(int(flower_run))
        except OperationFault as fault:
            _log.warning("Flower's run did not stop", extra={"why": str(fault)})

    def sign(self, message: str) -> str:
        """Sign the 32 bytes that tie a message to its place, for the server app."""
        content = base64.b64decode(message, validate=True)
        if len(content) != CONTEXT_BYTES:
            raise OperationFault("Only a 32-byte digest is signed here")
        return base64.b64encode(self._office.keys.identity.sign(content)).decode()

    def release(self, study: str, run: str, outcome: Mapping[str, Any], model: str) -> None:
        """Sign, write and publish what a run made: with that the run is finished."""
        office, view = self._office, self._office.view()
        made = find(view, study)
        row = office.runs.get(run)
        if row.study != made.digest or RunState(row.state).over:
            raise OperationFault(
                f"The run {run} releases nothing",
                why=f"it is {row.state}, or a run of another study",
                fix=f"see `study watch {made.id}`",
            )
        result = make_release(
            office.home,
            view,
            made,
            run_id=run,
            outcome=dict(outcome),
            model=base64.b64decode(model),
            key=office.keys.documents,
            now=office.clock(),
        )
        content = (office.home.results / made.id / RESULT_FILE).read_bytes()
        keys = office.keys
        office.repository.add_release(
            made.id, content, office.clock(), documents=keys.documents, online=keys.online
        )
        office.note(
            EventKind.RESULT_RELEASED,
            study=result.study,
            run=run,
            documents=_versions(view),
            body=digest(content),
        )
        office.runs.move(run, RunState.FINISHED, office.clock())

    def _read(self, text: str, source: str, view: TrustedView) -> Study:
        now = self._office.clock().replace(microsecond=0).isoformat()
        given = {"agreement": view.agreement.digest, "created": now}
        study = read_document(Study, text.encode(), source, complete=lambda v: {**given, **v})
        return complete(study, view.agreement)

    def _checks(self, study: Study, view: TrustedView, act: Act) -> tuple[CountryCheck, ...]:
        return check(study, view, act=act, now=self._office.clock(), tasks=TASK_KINDS)

    def _listed(self, study: Study, view: TrustedView) -> dict[str, Any]:
        row = self._office.runs.latest_of(study.digest)
        checks = self._checks(study, view, Act.CONTRIBUTE)
        return {
            "id": study.id,
            "title": study.title,
            "digest": study.digest,
            "task": study.task.kind,
            "answers": {one.country: one.answer for one in checks},
            "run": row.state if row else None,
            "expires": study.expires.isoformat(),
        }

    def _require_nodes(self, study: Study) -> None:
        online = self._office.seats.online()
        missing = [country for country in study.countries if not online.get(country)]
        if missing:
            raise OperationFault(
                f"The node of {', '.join(missing)} is not connected",
                why="a run needs every country of its roster",
                fix="ask its operator to run `pratique-node up` (`status` says what it waits for)",
            )

    def _require_idle(self, study: Study) -> None:
        row = self._office.runs.latest_of(study.digest)
        if row is not None and not RunState(row.state).over:
            raise OperationFault(
                f"The study {study.id} is running already",
                fix=f"`study watch {study.id}`, or `study stop {study.id}`",
            )


def _checked(study: Study, checks: tuple[CountryCheck, ...]) -> dict[str, Any]:
    return {
        "id": study.id,
        "digest": study.digest,
        "title": study.title,
        "study": study.model_dump(mode="json"),
        "countries": [one.to_json() for one in checks],
    }


def _versions(view: TrustedView) -> DocumentVersions:
    held = view.versions
    return DocumentVersions(root=held.root, targets=held.targets, countries=dict(held.countries))
