"""Studies and their runs: check, propose, list, launch, watch, stop, release."""

import base64
import secrets
from collections.abc import Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import Connection

from governance.audit.events import EventKind
from governance.cedar.engine import Act
from governance.documents.study import Study
from governance.results.result import RESULT_FILE, holds_result_of
from governance.trust.view import TrustedView
from keys.composite import Suite
from protocols.tasks import TASK_KINDS
from protocols.wire.encoding import digest
from protocols.wire.signed_message import CONTEXT_BYTES
from server.answers import (
    CheckedStudy,
    LaunchedRun,
    ListedStudy,
    ProposedStudy,
    StoppedRun,
    StudyStatus,
)
from server.errors import CoordinatorFault
from server.runs.store import RunRow, RunState, resumed
from server.services.context import CoordinatorContext
from server.services.drafts import CompletedDraft, read_draft
from server.services.ledger_estimate import period_shares
from server.services.release import make_release
from server.services.run_supervisor import stop_flower_run, submit
from server.services.study_checks import (
    CountryCheck,
    check,
    cohort_charge,
    complete,
    find,
    require_enough_countries,
    require_launchable,
    require_proposable,
    signatures_in_words,
)

RUN_ID_BYTES = 16


class Studies:
    """Answers every request about studies and their runs."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context, self._launching = context, Lock()

    def check(self, text: str, source: str) -> CheckedStudy:
        """Return the completed study and what each country's rules answer to it."""
        view = self._context.view()
        draft = self._read(text, source, view)
        mode = (study := draft.study).local_mode
        checks = self._checks(study, view, Act.PROPOSE)
        return CheckedStudy(
            **dict(_proposed(draft, checks)),
            local_mode=mode.sentence(view.agreement.honest) if mode else "",
            by_country=study.task.by_country,
            cohort_count=cohort_charge(view.agreement),
            signatures=signatures_in_words(view, study.countries),
        )

    def propose(self, text: str, source: str) -> ProposedStudy:
        """Sign and publish a study, unless no country could permit it."""
        context, view = self._context, self._context.view()
        draft = self._read(text, source, view)
        study = draft.study
        checks = self._checks(study, view, Act.PROPOSE)
        require_proposable(checks)
        if any(known.id == study.id and known != study for known in view.studies.values()):
            raise CoordinatorFault(
                f"There is another study with the id {study.id!r}",
                why="a study that was published under an id does not change",
                fix="choose a new id",
            )
        keys = context.keys
        context.repository.add_study(
            study, context.clock(), document_key=keys.document_key, online_key=keys.online_key
        )
        context.note(EventKind.STUDY_PROPOSED, study=study.digest, subject=study.id)
        return _proposed(draft, checks)

    def list(self) -> list[ListedStudy]:
        """Return every published study, the countries' answers, and its newest run."""
        view = self._context.view()
        return [self._listed(study, view) for study in view.studies.values()]

    def launch(self, name: str) -> LaunchedRun:
        """Start a run of a study that every country has permitted."""
        context, view = self._context, self._context.view()
        study = find(view, name)
        checks = self._checks(study, view, Act.CONTRIBUTE)
        require_launchable(checks)
        require_enough_countries(study, checks)
        view.require_signature_algorithms(study.countries)
        self._require_no_result(study)
        self._require_unused_permits(study, view)
        self._require_nodes(study)
        run_id = secrets.token_hex(RUN_ID_BYTES)
        with self._launching:  # of two launches at once, the second sees the first one's run
            self._require_idle(study)
            attempt = self._create(run_id, study, view)
        try:
            flower_run = submit(context, run_id, attempt)
        except CoordinatorFault as fault:
            context.runs.move(run_id, RunState.FAILED, context.clock(), str(fault))
            raise
        return LaunchedRun(study=study.id, run=run_id, flower_run=str(flower_run))

    def _create(self, run_id: str, study: Study, view: TrustedView) -> int:
        def log_event(_attempt: int, connection: Connection) -> None:
            self._context.note(
                EventKind.STUDY_LAUNCHED,
                study=study.digest,
                run=run_id,
                documents=view.versions,
                connection=connection,
            )

        return self._context.runs.create(run_id, study.digest, self._context.clock(), log_event)

    def status(self, name: str) -> StudyStatus:
        """Return the state of a study's newest run, round by round."""
        context, view = self._context, self._context.view()
        study = find(view, name)
        run = context.runs.latest_of(study.digest)
        if run is None:
            raise CoordinatorFault(
                f"The study {study.id} was never launched", fix=f"`study launch {study.id}`"
            )
        online = context.sessions.online()
        return StudyStatus(
            study=study.id,
            title=study.title,
            run=run.run_id,
            flower_run=run.flower_run,
            state=run.state,
            reason=run.reason,
            over=run.over,
            round=run.round,
            rounds=sum(m.rounds for m in study.mechanisms if m.leaves_country),
            epsilon=study.privacy.epsilon,
            delta=study.privacy.delta,
            cohort_count=cohort_charge(view.agreement),
            ledgers=period_shares(view, study, context.runs.all(), context.clock()),
            online={country: online.get(country, False) for country in study.countries},
            minimum_countries=_minima(view, study),
            history=context.runs.rounds_of(run.run_id),
            resumed=resumed(run, context.clock()),
        )

    def stop(self, name: str) -> StoppedRun:
        """Stop the running run of a study; what was charged stays charged."""
        context, study = self._context, find(self._context.view(), name)
        run = context.runs.latest_of(study.digest)
        if run is None or run.over:
            raise CoordinatorFault(
                f"The study {study.id} is not running",
                why=f"its newest run is {run.state}" if run else "it was never launched",
                fix="see `study list` for the runs that can be stopped",
            )
        context.runs.move(
            run.run_id, RunState.STOPPED, context.clock(), "stopped by the coordinator"
        )
        stop_flower_run(context, run.flower_run)
        context.note(EventKind.STUDY_STOPPED, study=study.digest, run=run.run_id)
        return StoppedRun(study=study.id, run=run.run_id)

    def sign(self, message: str, suite: str) -> str:
        """Sign, for the server app, the 32-byte digest that binds a message to its context.

        `suite` is the agreement's, which the app has read from the verified documents.
        """
        content = base64.b64decode(message, validate=True)
        if len(content) != CONTEXT_BYTES:
            raise CoordinatorFault(f"Only a {CONTEXT_BYTES}-byte digest is signed here")
        identity = Suite(suite).private(self._context.keys.identity)
        return base64.b64encode(identity.sign(content)).decode()

    def release(self, study: str, run: str, outcome: Mapping[str, Any], model: str) -> None:
        """Sign, write and publish the outcome of a run; this finishes the run.

        If an attempt that was killed had already signed the result, that result is published.
        """
        context, view = self._context, self._context.view()
        released = find(view, study)
        self._require_releasable(run, released)
        folder = context.home.results / released.id
        if not holds_result_of(folder, run, context.keys.document_key.public):
            make_release(
                context.home,
                view,
                released,
                run_id=run,
                outcome=dict(outcome),
                model=base64.b64decode(model),
                key=context.keys.document_key,
                now=context.clock(),
            )
        self._publish(released, run, view)

    def _require_releasable(self, run_id: str, study: Study) -> None:
        run = self._context.runs.get(run_id)
        if run.study != study.digest or run.over:
            raise CoordinatorFault(
                f"The run {run_id} cannot release a result",
                why=f"it is {run.state}, or a run of another study",
                fix=f"see `study watch {study.id}`",
            )

    def _publish(self, study: Study, run: str, view: TrustedView) -> None:
        context, keys = self._context, self._context.keys
        content = (context.home.results / study.id / RESULT_FILE).read_bytes()
        context.repository.add_release(
            study.id,
            content,
            context.clock(),
            document_key=keys.document_key,
            online_key=keys.online_key,
        )

        def log_event(connection: Connection) -> None:
            about = {"study": study.digest, "run": run, "documents": view.versions}
            released, finished = EventKind.RESULT_RELEASED, EventKind.STUDY_FINISHED
            context.note(released, connection=connection, body=digest(content), **about)
            context.note(finished, connection=connection, **about)

        context.runs.finish(run, context.clock(), log_event)

    def _read(self, text: str, source: str, view: TrustedView) -> CompletedDraft:
        now = self._context.clock().replace(microsecond=0).isoformat()
        given = {"agreement": view.agreement.digest, "created": now}
        return read_draft(text, source, given, lambda study: complete(study, view.agreement))

    def _checks(self, study: Study, view: TrustedView, act: Act) -> tuple[CountryCheck, ...]:
        return check(study, view, act=act, now=self._context.clock(), tasks=TASK_KINDS)

    def _listed(self, study: Study, view: TrustedView) -> ListedStudy:
        run = self._context.runs.latest_of(study.digest)
        checks = self._checks(study, view, Act.CONTRIBUTE)
        return ListedStudy(
            id=study.id,
            title=study.title,
            digest=study.digest,
            task=study.task.kind,
            answers={checked.country: checked.decision for checked in checks},
            run=run.state if run else None,
            expires=study.expires.isoformat(),
        )

    def _require_nodes(self, study: Study) -> None:
        online = self._context.sessions.online()
        missing = [country for country in study.countries if not online.get(country)]
        if missing:
            raise CoordinatorFault(
                f"The node of {', '.join(missing)} is not connected",
                why="a run needs every country of its roster",
                fix="ask its operator to run `pratique-node up`; `pratique-node status` shows what "
                "the node waits for",
            )

    def _require_idle(self, study: Study) -> None:
        run = self._context.runs.latest_of(study.digest)
        if run is not None and not run.over:
            raise CoordinatorFault(
                f"The study {study.id} is running already",
                fix=f"`study watch {study.id}`, or `study stop {study.id}`",
            )

    def _require_no_result(self, study: Study) -> None:
        run = self._context.runs.latest_of(study.digest)
        if run is not None and run.state == RunState.FINISHED:
            raise CoordinatorFault(
                f"The study {study.id} already has its result",
                why=f"run {run.run_id} released it, and a published result does not change",
                fix=f"see `result show {study.id}`; for another run, propose the study under a "
                "new id",
            )

    def _require_unused_permits(self, study: Study, view: TrustedView) -> None:
        """Require permits that no run was charged under; the nodes would refuse such a run."""
        charged = [run for run in self._context.runs.of(study.digest) if run.over and run.round]
        if not charged:
            return
        last = max(charged, key=lambda run: run.created)
        if used := _permits_before(view, study, last.created):
            raise _used_up(study, last, used)


def _permits_before(view: TrustedView, study: Study, moment: datetime) -> list[str]:
    """Return the countries whose permit for this study was issued up to this moment."""
    issued = {country: _permit_issued(view, country, study) for country in study.countries}
    return sorted(country for country, time in issued.items() if time and time <= moment)


def _used_up(study: Study, run: RunRow, countries: list[str]) -> CoordinatorFault:
    return CoordinatorFault(
        f"The permits of {', '.join(countries)} for {study.id} are used up",
        why=f"run {run.run_id} was charged under them and is {run.state}: "
        f"{run.reason or 'it ended without a result'}",
        fix="ask the officers of these countries to approve the study again (`pratique-officer "
        f"approve {study.id} --reconsider`); a new run is charged in full",
    )


def _proposed(draft: CompletedDraft, checks: tuple[CountryCheck, ...]) -> ProposedStudy:
    study = draft.study
    return ProposedStudy(
        id=study.id,
        digest=study.digest,
        title=study.title,
        study=study.model_dump(mode="json"),
        chosen=draft.chosen,
        countries=tuple(checked.to_reply() for checked in checks),
    )


def _minima(view: TrustedView, study: Study) -> dict[str, int]:
    """Return, by country, how many countries its permit demands, if it demands a number."""
    permits = {country: view.permit(country, study.digest) for country in study.countries}
    stated = {country: permit.minimum_countries for country, permit in permits.items() if permit}
    return {country: number for country, number in stated.items() if number}


def _permit_issued(view: TrustedView, country: str, study: Study) -> datetime | None:
    permit = view.permit(country, study.digest)
    return permit.issued if permit else None
