"""Creates the released result of a finished run: signed, written, with its date of deletion."""

from datetime import datetime, timedelta
from typing import Any

from governance.budget.accounting import epsilon
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.results.result import (
    INTEGRITY,
    CohortCost,
    Result,
    ResultPart,
    write_result,
)
from governance.trust.view import TrustedView
from keys.identity import SigningKey
from protocols.tasks import TrainGlm, Training
from protocols.tasks.layout import vector_from_bytes
from server.home import CoordinatorHome


def make_release(
    home: CoordinatorHome,
    view: TrustedView,
    study: Study,
    *,
    run_id: str,
    outcome: dict[str, Any],
    model: bytes,
    key: SigningKey,
    now: datetime,
) -> Result:
    """Write the result's folder and return the signed result.

    `outcome` is what `server.runs.attempt.outcome_json` returned; `model` is the flat weights, or
    empty.
    """
    weights = None
    if isinstance(study.task, Training):
        weights = vector_from_bytes(model, study.task.dimension(study.features))
    result = _result(view, study, run_id, outcome, key, now)
    return write_result(home.results / study.id, result, key.sign, weights)


def _result(
    view: TrustedView,
    study: Study,
    run_id: str,
    outcome: dict[str, Any],
    key: SigningKey,
    now: datetime,
) -> Result:
    agreement, task, findings = view.agreement, study.task, outcome["findings"]
    part = ResultPart.model_validate(outcome["part"])
    trained = isinstance(task, Training)
    return Result(
        **dict(part),
        study_id=study.id,
        study=study.digest,
        agreement=agreement.digest,
        run=run_id,
        title=study.title,
        purpose=study.purpose.sentence,
        recipients=study.recipients,
        roster_size=len(study.countries),
        honest=agreement.honest,
        colluding=agreement.colluding,
        epsilon=epsilon(study.releases_of(agreement), agreement.honest, study.privacy.delta),
        cohort_count=_cohort_count(agreement),
        delta=study.privacy.delta,
        task=task,
        features=study.features,
        coordinates=task.coordinate_names(study.features) if isinstance(task, TrainGlm) else (),
        evaluation=findings if trained and findings else None,
        table=None if trained else findings,
        integrity=INTEGRITY,
        documents=view.versions,
        released=_utc_text(now),
        keep_until=_utc_text(now + timedelta(days=study.release.keep_days)),
        signer=key.public.to_text(),
    )


def _cohort_count(agreement: Agreement) -> CohortCost | None:
    count = agreement.cohort_count
    return None if count is None else CohortCost(epsilon=count.epsilon, delta=count.delta)


def _utc_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
