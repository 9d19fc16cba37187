"""Decide on studies: show, confirm, sign and deliver a permit, a refusal or a withdrawal."""

from collections.abc import Mapping
from typing import Any

from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.officer.commands_sign import view_if_usable
from governance.officer.decision_rules import (
    Conditions,
    build_permit,
    build_withdrawal,
    is_permitted,
    require_allowed,
    require_consent,
    require_model,
    require_open,
    require_permit,
    require_undecided,
)
from governance.officer.delivery import Delivery, sign_and_hand_over, use_node
from governance.officer.session import KNOWN_TASKS, OfficerSession
from governance.officer.studies import find_study, is_named, keep_study, kept_studies
from governance.policy.assessment import assess
from governance.policy.calibration import calibration_in_words
from governance.policy.explain import explain_study
from governance.policy.facts import day, listed
from governance.runtime.safe_text import quoted
from governance.runtime.wording import exact
from governance.trust.bundle import CountryDocuments
from governance.trust.view import TrustedView

NEXT = "Next: once every country of the study has permitted it, the coordinator may launch it."
NEXT_CARRIED = (
    "Next: once your node has the permit and every country of the study has permitted it, the "
    "coordinator may launch it."
)
NEXT_NARROWED = (
    "Next: the coordinator sees your conditions and may propose a study that keeps them."
)


def approve(
    session: OfficerSession,
    name: str,
    conditions: Conditions,
    delivery: Delivery,
    *,
    reconsider: bool,
    yes: bool,
) -> None:
    """Permit a study, unless the agreement or the country's own rules forbid it."""
    view = session.view()
    study = find_study(view.studies.values(), name)
    require_open(study, session.country, session.now())
    if not reconsider:
        require_undecided(study, session.own(), verb="approve")
    assessment = session.weigh(study, view, session.ledger(study, view))
    require_allowed(study, assessment)
    require_consent(study, given=conditions.by_country)
    if conditions.calibrate:
        require_model(study)
    own = session.own()
    permit = build_permit(
        study,
        view.agreement,
        session.country,
        session.settings.authority,
        conditions,
        session.now(),
        former=own.permit(study.digest) if own else None,
    )
    # in full: `show` may have shown another text under the same name
    session.terminal.labelled(explain_study(study, view.agreement, assessment, permit))
    if warning := session.records_warning():
        session.terminal.say(f"Your node: {warning}.")
    _show_permit(session, study, permit, "in your words" if conditions.sentence else "sentence")
    fits = keeps_conditions(session, study, view, permit)
    if conditions.by_country:
        session.terminal.confirm("May your country's own sum be visible, with noise only?", yes=yes)
    session.terminal.confirm("Sign this permit?", yes=yes)
    use_node(session, delivery)
    keep_study(session.home.studies, study)
    published = view.country(session.country)
    result = sign_and_hand_over(session, lambda own: own.approve(permit), delivery, published)
    session.terminal.say(_next(result) if fits else NEXT_NARROWED)
    session.terminal.say(f"To stop it: pratique-officer withdraw {study.id} --reason TEXT")
    session.terminal.answer({"decision": "approved", **_named(study), **result})


def _next(result: Mapping[str, Any]) -> str:
    """Return what comes next, which depends on whether the node has the new permit."""
    return NEXT if result["node_has"] == result["version"] else NEXT_CARRIED


def _show_permit(session: OfficerSession, study: Study, permit: Permit, label: str) -> None:
    """Show what would be signed; `label` says whether the sentence is the officer's."""
    conditions, privacy = permit.conditions, study.privacy
    at_most = conditions.epsilon_at_most
    session.terminal.heading(f"Permit of {session.country} for {quoted(study.title)}")
    session.terminal.facts(
        {
            "study": f"{study.id}, {study.digest}",
            "features": "all that it declares"
            if conditions.features is None
            else listed(conditions.features),
            "privacy": f"as promised, ε = {exact(privacy.epsilon)} at δ = {exact(privacy.delta)}"
            if at_most is None
            else f"at most ε = {exact(at_most)}",
            "countries": f"no sum over fewer than {permit.minimum_countries} countries",
            "own sum": "visible, with noise only"
            if conditions.by_country
            else "not visible: only sums over countries are",
            "calibration": calibration_in_words(permit),
            "until": day(conditions.expires),
            "runs": f"one charged run; it is your permit number {permit.number} for this study",
            "by": f"{quoted(permit.approved_by)} of {permit.country}, on {day(permit.issued)}",
            "under": f"the agreement {permit.agreement}",
            label: quoted(permit.sentence),
        }
    )


def keeps_conditions(
    session: OfficerSession, study: Study, view: TrustedView, permit: Permit
) -> bool:
    """Whether the study, as proposed, keeps the permit's conditions; warn of each it breaks."""
    own = session.own()
    assessment = assess(
        study,
        view.agreement,
        country=session.country,
        now=session.now(),
        permit=permit,
        national=own.policy if own else None,
        installed_tasks=KNOWN_TASKS,
    )
    for finding in assessment.findings:
        session.terminal.warn(f"{finding.sentence} Your node will refuse it as it is proposed now.")
    return assessment.allowed


def refuse(
    session: OfficerSession, name: str, reason: str, delivery: Delivery, *, yes: bool
) -> None:
    """Refuse a study on which the officer has not decided yet."""
    view = session.view()
    study = find_study(view.studies.values(), name)
    require_open(study, session.country, session.now())
    require_undecided(study, session.own(), verb="refuse")
    _sign_refusal(
        session, study, reason, delivery, published=view.country(session.country), yes=yes
    )


def withdraw(
    session: OfficerSession, name: str, reason: str, delivery: Delivery, *, yes: bool
) -> None:
    """Withdraw a permit. The officer's node gets it first, whatever the exchange does."""
    study = _study_to_withdraw(session, name)
    require_permit(study, session.own())
    _sign_refusal(session, study, reason, delivery, published=None, yes=yes)


def _study_to_withdraw(session: OfficerSession, name: str) -> Study:
    """Return the permitted study of that name; ask the exchange only if none is stored here."""
    own, stored = session.own(), kept_studies(session.home.studies)
    permitted = [s for s in stored if is_named(s, name) and is_permitted(s.digest, own)]
    if permitted:
        return find_study(permitted, name)
    view = view_if_usable(session)
    return find_study([*stored, *(view.studies.values() if view else ())], name)


def _sign_refusal(
    session: OfficerSession,
    study: Study,
    reason: str,
    delivery: Delivery,
    *,
    published: CountryDocuments | None,
    yes: bool,
) -> None:
    withdrawal = build_withdrawal(study.digest, session.country, reason, session.now())
    session.terminal.heading(f"Refusal by {session.country} of {quoted(study.title)}")
    session.terminal.facts({"study": f"{study.id}, {study.digest}", "reason": quoted(reason)})
    session.terminal.confirm("Sign it? The other parties will read the reason.", yes=yes)
    use_node(session, delivery)
    keep_study(session.home.studies, study)
    result = sign_and_hand_over(session, lambda own: own.withdraw(withdrawal), delivery, published)
    session.terminal.say("Your node takes no further part in this study from its next message on.")
    session.terminal.say("What it has sent already cannot be called back, and stays charged.")
    session.terminal.answer({"decision": "no", **_named(study), **result})


def _named(study: Study) -> dict[str, str]:
    return {"id": study.id, "study": study.digest}
