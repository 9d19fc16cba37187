"""Creates the released result of a finished run: signed, written, with its date of deletion."""

from datetime import datetime, timedelta
from typing import Any

from governance.budget.composition import schedule_epsilon
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.results.result import (
    CohortCost,
    Result,
    ResultPart,
    integrity_sentence,
    write_result,
)
from governance.trust.view import TrustedView
from keys.identity import SigningKey
from protocols.tasks import TrainGlm, Training
from protocols.tasks.baselines import baselines_of
from protocols.tasks.layout import vector_from_bytes
from server.home import CoordinatorHome
from server.learning.absent_countries import without_absent


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
    findings = without_absent(task, findings, part.figures_over)
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
        epsilon=schedule_epsilon(
            study.releases_of(agreement), study.accounting, agreement.honest, study.privacy.delta
        ),
        accounting=study.accounting,
        mechanisms=study.releases_of(agreement),
        cohort_count=_cohort_count(agreement),
        delta=study.privacy.delta,
        task=task,
        features=study.features,
        coordinates=task.coordinate_names(study.features) if isinstance(task, TrainGlm) else (),
        baselines=baselines_of(task, study.features, _untrained(part)),
        evaluation=findings if trained and findings else None,
        table=None if trained else findings,
        integrity=integrity_sentence(task),
        documents=view.versions,
        released=_utc_text(now),
        keep_until=_utc_text(now + timedelta(days=study.release.keep_days)),
        signer=key.public.to_text(),
    )


def _untrained(part: ResultPart) -> set[str]:
    """Return the countries that were left out of every round of a training."""
    rounds = sum(part.rounds_opened.values())
    return {country for country, times in part.left_out.items() if times == rounds}


def _cohort_count(agreement: Agreement) -> CohortCost | None:
    count = agreement.cohort_count
    return None if count is None else CohortCost(epsilon=count.epsilon, delta=count.delta)


def _utc_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
