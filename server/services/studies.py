"""Studies on the coordinator's side: check, propose, list, launch, watch, stop, release."""

import base64
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any

from sqlalchemy import Connection

from governance.audit.events import EventKind
from governance.cedar.engine import Act
from governance.documents.reading import read_document
from governance.documents.study import Study
from governance.trust.view import TrustedView
from keys.composite import Suite
from protocols.tasks import TASK_KINDS
from protocols.wire.encoding import digest
from protocols.wire.signed_message import CONTEXT_BYTES
from server.errors import OperationFault
from server.learning.release import RESULT_FILE, holds_result_of
from server.runs.store import RunState, resumed
from server.services.context import CoordinatorContext
from server.services.ledger_estimate import period_shares
from server.services.release import make_release
from server.services.run_supervisor import stop_carrier, submit
from server.services.study_checks import (
    CountryCheck,
    check,
    complete,
    find,
    require_launchable,
    require_proposable,
    signatures_in_words,
)

RUN_ID_BYTES = 16


class Studies:
    """Everything about studies and their runs."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context, self._launching = context, Lock()

    def check(self, text: str, source: str) -> dict[str, Any]:
        """Return the completed study and what each country's rules say to it."""
        view = self._context.view()
        study = self._read(text, source, view)
        mode = study.local_mode
        said = mode.sentence(view.agreement.honest) if mode else ""
        signed = signatures_in_words(view, study.countries)
        checked = _checked(study, self._checks(study, view, Act.PROPOSE))
        return checked | {"local_mode": said, "signatures": signed}

    def propose(self, text: str, source: str) -> dict[str, Any]:
        """Sign and publish a study; refused where the agreement itself forbids it."""
        context, view = self._context, self._context.view()
        study = self._read(text, source, view)
        checks = self._checks(study, view, Act.PROPOSE)
        require_proposable(checks)
        if any(known.id == study.id and known != study for known in view.studies.values()):
            raise OperationFault(
                f"There is another study with the id {study.id!r}",
                why="what the countries were shown under an id does not change",
                fix="choose a new id",
            )
        keys = context.keys
        context.repository.add_study(
            study, context.clock(), documents=keys.documents, online=keys.online
        )
        context.note(EventKind.STUDY_PROPOSED, study=study.digest, subject=study.id)
        return _checked(study, checks)

    def list(self) -> list[dict[str, Any]]:
        """Return every published study with its answers and its newest run."""
        view = self._context.view()
        return [self._listed(study, view) for study in view.studies.values()]

    def launch(self, name: str) -> dict[str, str]:
        """Start a run of a permitted study; returns its run id and Flower's."""
        context, view = self._context, self._context.view()
        study = find(view, name)
        require_launchable(self._checks(study, view, Act.CONTRIBUTE))
        view.require_suite(study.countries)
        self._require_no_result(study)
        self._require_unused_permits(study, view)
        self._require_nodes(study)
        run_id = secrets.token_hex(RUN_ID_BYTES)
        with self._launching:  # of two at once, the second finds the study running
            self._require_idle(study)
            attempt = context.runs.create(
                run_id,
                study.digest,
                context.clock(),
                lambda _, connection: context.note(
                    EventKind.STUDY_LAUNCHED,
                    study=study.digest,
                    run=run_id,
                    documents=view.versions,
                    connection=connection,
                ),
            )
        try:
            flower_run = submit(context, run_id, attempt)
        except OperationFault as fault:
            context.runs.move(run_id, RunState.FAILED, context.clock(), str(fault))
            raise
        return {"study": study.id, "run": run_id, "flower_run": str(flower_run)}

    def status(self, name: str) -> dict[str, Any]:
        """Return where the newest run of a study stands, round by round."""
        context, view = self._context, self._context.view()
        study = find(view, name)
        row = context.runs.latest_of(study.digest)
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
            "rounds": sum(m.rounds for m in study.mechanisms if m.leaves),
            "epsilon": study.privacy.epsilon,
            "delta": study.privacy.delta,
            "ledgers": period_shares(view, study, context.runs.all(), context.clock()),
            "online": {c: context.sessions.online().get(c, False) for c in study.countries},
            "history": context.runs.rounds_of(row.run_id),
            "resumed": resumed(row, context.clock()),
        }

    def stop(self, name: str) -> dict[str, Any]:
        """Stop the running run of a study; what was charged stays charged."""
        context, study = self._context, find(self._context.view(), name)
        row = context.runs.latest_of(study.digest)
        if row is None or RunState(row.state).over:
            raise OperationFault(f"The study {study.id} is not running")
        context.runs.move(
            row.run_id, RunState.STOPPED, context.clock(), "stopped by the coordinator"
        )
        stop_carrier(context, row.flower_run)
        context.note(EventKind.STUDY_STOPPED, study=study.digest, run=row.run_id)
        return {"study": study.id, "run": row.run_id}

    def sign(self, message: str, suite: str) -> str:
        """Sign the 32 bytes that tie a message to its place, for the server app.

        `suite` is the agreement's, as the app has verified it.
        """
        content = base64.b64decode(message, validate=True)
        if len(content) != CONTEXT_BYTES:
            raise OperationFault("Only a 32-byte digest is signed here")
        identity = Suite(suite).private(self._context.keys.identity)
        return base64.b64encode(identity.sign(content)).decode()

    def release(self, study: str, run: str, outcome: Mapping[str, Any], model: str) -> None:
        """Sign, write and publish what a run made: with that the run is finished.

        Where an attempt that was killed had signed the result already, that one is published.
        """
        context, view = self._context, self._context.view()
        made = find(view, study)
        row = context.runs.get(run)
        if row.study != made.digest or RunState(row.state).over:
            raise OperationFault(
                f"The run {run} releases nothing",
                why=f"it is {row.state}, or a run of another study",
                fix=f"see `study watch {made.id}`",
            )
        folder = context.home.results / made.id
        if not holds_result_of(folder, run, context.keys.documents.public):
            make_release(
                context.home,
                view,
                made,
                run_id=run,
                outcome=dict(outcome),
                model=base64.b64decode(model),
                key=context.keys.documents,
                now=context.clock(),
            )
        self._publish(made, run, view)

    def _publish(self, study: Study, run: str, view: TrustedView) -> None:
        context, keys = self._context, self._context.keys
        content = (context.home.results / study.id / RESULT_FILE).read_bytes()
        context.repository.add_release(
            study.id, content, context.clock(), documents=keys.documents, online=keys.online
        )

        def noted(connection: Connection) -> None:
            say = partial(context.note, connection=connection)
            run_of = {"study": study.digest, "run": run}
            about: dict[str, Any] = {**run_of, "documents": view.versions}
            say(EventKind.RESULT_RELEASED, body=digest(content), **about)
            say(EventKind.STUDY_FINISHED, **about)

        context.runs.finish(run, context.clock(), noted)

    def _read(self, text: str, source: str, view: TrustedView) -> Study:
        now = self._context.clock().replace(microsecond=0).isoformat()
        given = {"agreement": view.agreement.digest, "created": now}
        study = read_document(Study, text.encode(), source, complete=lambda v: {**given, **v})
        return complete(study, view.agreement)

    def _checks(self, study: Study, view: TrustedView, act: Act) -> tuple[CountryCheck, ...]:
        return check(study, view, act=act, now=self._context.clock(), tasks=TASK_KINDS)

    def _listed(self, study: Study, view: TrustedView) -> dict[str, Any]:
        row = self._context.runs.latest_of(study.digest)
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
        online = self._context.sessions.online()
        missing = [country for country in study.countries if not online.get(country)]
        if missing:
            raise OperationFault(
                f"The node of {', '.join(missing)} is not connected",
                why="a run needs every country of its roster",
                fix="ask its operator to run `pratique-node up` (`status` says what it waits for)",
            )

    def _require_idle(self, study: Study) -> None:
        row = self._context.runs.latest_of(study.digest)
        if row is not None and not RunState(row.state).over:
            raise OperationFault(
                f"The study {study.id} is running already",
                fix=f"`study watch {study.id}`, or `study stop {study.id}`",
            )

    def _require_no_result(self, study: Study) -> None:
        row = self._context.runs.latest_of(study.digest)
        if row is not None and row.state == RunState.FINISHED:
            raise OperationFault(
                f"The study {study.id} has its result already",
                why=f"run {row.run_id} released it, and what is published does not change",
                fix=f"`result show {study.id}`; to ask again, propose the study under a new id",
            )

    def _require_unused_permits(self, study: Study, view: TrustedView) -> None:
        """A permit is for one charged run; the nodes would refuse a second one by themselves."""
        ended = (r for r in self._context.runs.of(study.digest) if RunState(r.state).over)
        charged = [row for row in ended if row.round]
        if not charged:
            return
        last = max(charged, key=lambda row: row.created)
        issued = {country: _permit_of(view, country, study) for country in study.countries}
        if used := sorted(c for c, moment in issued.items() if moment and moment <= last.created):
            raise OperationFault(
                f"The permits of {', '.join(used)} for {study.id} are used up",
                why=f"run {last.run_id} was charged under them and is {last.state}: "
                f"{last.reason or 'it ended without a result'}",
                fix="ask the officers named to approve the study again (`pratique-officer approve "
                f"{study.id} --reconsider`); a new run is charged in full",
            )


def _checked(study: Study, checks: tuple[CountryCheck, ...]) -> dict[str, Any]:
    return {
        "id": study.id,
        "digest": study.digest,
        "title": study.title,
        "study": study.model_dump(mode="json"),
        "countries": [one.to_json() for one in checks],
    }


def _permit_of(view: TrustedView, country: str, study: Study) -> datetime | None:
    said = view.country(country)
    permit = said.permit(study.digest) if said else None
    return permit.issued if permit else None
