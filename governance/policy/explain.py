"""Explain a study in plain words to the officer who decides on it."""

from collections.abc import Iterator

from governance.budget.composition import accounting_sentence
from governance.documents.agreement import Agreement
from governance.documents.permit import Permit
from governance.documents.purposes import (
    DATA_CATEGORIES,
    DUO_TERMS,
    EHDS_CODES,
    PURPOSE_OF_USE,
)
from governance.documents.study import ReleaseKind, Study
from governance.policy.assessment import Assessment, Charge
from governance.policy.by_country import FILLED_IN, names_countries, own_sum_in_words
from governance.policy.calibration import calibration_in_words
from governance.policy.facts import day, listed, share_of
from governance.policy.minimum_countries import enforced_minimum, proposed_minimum
from governance.policy.study_terms import TASK_WORDS, condition, feature, release, task_terms
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted, exact, rounded_up
from keys.errors import TO_DO
from protocols.tasks.by_country import COUNTRY
from protocols.tasks.schedule import CohortThreshold

Entry = tuple[str, str]
"""A label, empty if the text continues the one before, and the text."""


def explain_study(
    study: Study, agreement: Agreement, assessment: Assessment, permit: Permit | None = None
) -> list[Entry]:
    """Return who asks what, why, of whom, at what cost, and how the result is used.

    Every field of the study is in it, and every value exactly as it is signed. `permit` is the
    country's own for the study, in force or about to be signed; one that was withdrawn, has expired
    or is under another agreement is not in force.
    """
    return [
        *_asked(study, agreement),
        *_own_sum(study),
        *_used(study),
        *_computed(study),
        *_cost(study, agreement, assessment.charge, permit),
        *_result(study, permit, may_approve=assessment.allowed),
        *_decision(assessment),
    ]


def _asked(study: Study, agreement: Agreement) -> Iterator[Entry]:
    purpose = study.purpose
    yield "Study", f"{study.id}: {quoted(study.title)}"
    yield "Digest", study.digest
    yield "Agreement", study.agreement
    yield "Asked by", f"{quoted(agreement.coordinator.name)} on {day(study.created)}"
    yield "Question", quoted(study.question)
    yield "Purpose", quoted(purpose.sentence)
    yield "", f"{purpose.ehds}: {EHDS_CODES[purpose.ehds].sentence}"
    use = purpose.purpose_of_use
    yield "", f"{use}: {PURPOSE_OF_USE[use].sentence}"
    for term in purpose.duo:
        yield "", f"{term}: {DUO_TERMS[term].sentence}"
    yield "Legal basis", quoted(study.legal_basis)
    yield "Countries", listed(study.countries)


def _own_sum(study: Study) -> Iterator[Entry]:
    if visible := own_sum_in_words(study):
        yield "By country", f"{visible}."


def _used(study: Study) -> Iterator[Entry]:
    yield "Register", study.population.register_name
    conditions = map(condition, study.population.where)
    yield "Patients", ", ".join(conditions) or "all in the register who have not opted out"
    categories = (DATA_CATEGORIES[code].sentence for code in study.data_categories)
    yield "Data", listed(categories)
    own = {COUNTRY} if study.task.by_country else set()
    used = set(study.features_used)
    read = [feature(f) for f in study.features if f.name in used]
    unread = [feature(f) for f in study.features if f.name not in used | own]
    yield from _under("Features", read or ["none"])
    for name in names_countries(study):
        text = (
            f"{name} has countries as values: sums by it show each country's own part, whatever "
            "the agreement says about by_country; to prevent that, permit the study without it"
        )
        yield "", text
    yield from _under("Not read", unread)
    for declared in (f for f in study.features if f.name in own):
        yield "Filled in", f"{declared.name} ({listed(map(quoted, declared.levels))}): {FILLED_IN}"


def _under(label: str, texts: list[str]) -> Iterator[Entry]:
    for number, text in enumerate(texts):
        yield "" if number else label, text


def _computed(study: Study) -> Iterator[Entry]:
    yield from _under(
        "Method", [f"{study.task.kind}: {TASK_WORDS[study.task.kind]}", *task_terms(study)]
    )
    yield from _under("Releases", [release(m) for m in study.mechanisms] or ["none yet"])


def _cost(
    study: Study, agreement: Agreement, charge: Charge | None, permit: Permit | None
) -> Iterator[Entry]:
    epsilon, delta = exact(study.privacy.epsilon), exact(study.privacy.delta)
    yield "Privacy", f"ε = {epsilon}, δ = {delta} for each patient"
    n, h, c = len(study.countries), agreement.honest, agreement.colluding
    yield "", accounting_sentence([m.phase for m in study.mechanisms], study.accounting)
    yield "", f"{n} countries, {h} honest, {c} may collude with the coordinator"
    yield "", _fewest(study, agreement, permit)
    if study.local_mode is not None:
        yield "Local mode", study.local_mode.sentence(h)
    if charge is None:
        yield "Budget", "not known: the study has no valid schedule, or the register no budget"
        return
    yield "Cohort", _cohort(study, agreement)
    yield "Computed", f"ε = {rounded_up(charge.epsilon)} at δ = {exact(charge.delta)}"
    share = share_of(charge.micro, charge.cap_micro)
    left = share_of(max(0, charge.left_micro - charge.micro), charge.cap_micro)
    yield "Budget", f"costs {share} of this period's budget; {left} would be left"


def _cohort(study: Study, agreement: Agreement) -> str:
    """Return how the smallest cohort is checked, with its errors and its cost."""
    count = study.cohort_count
    if count is None:
        return "not checked: the study has no schedule"
    sentence = CohortThreshold.of(agreement.smallest_cohort, count).sentence()
    stated = agreement.cohort_count
    if stated is None:
        return f"{sentence}; the count is part of the study's ε"
    return (
        f"{sentence}; the count costs ε = {exact(stated.epsilon)}, δ = {exact(stated.delta)} more, "
        "once for all studies of this population and each version of the records"
    )


def _fewest(study: Study, agreement: Agreement, permit: Permit | None) -> str:
    """Return how many countries a sum needs at least, in one sentence.

    The node enforces this number, once the permit is signed.
    """
    n = len(study.countries)
    if permit is None:
        fewest = proposed_minimum(study, agreement)
    else:
        fewest = enforced_minimum(agreement, permit)
    if n < fewest:
        return f"no run can begin: a sum needs {fewest} countries"
    if n == fewest:
        return "a sum is opened over all of them, or not at all"
    return f"a sum is opened over at least {fewest} of them"


def _result(study: Study, permit: Permit | None, *, may_approve: bool) -> Iterator[Entry]:
    released = study.release
    what = "a model" if released.what is ReleaseKind.MODEL else "a table of noisy counts"
    yield "Result", f"{what}, to {listed(map(quoted, study.recipients))}"
    yield "Audience", quoted(released.audience)
    yield "Kept", counted(released.keep_days, "day")
    if released.what is ReleaseKind.MODEL:
        yield "Calibration", calibration_in_words(permit, may_approve=may_approve)
    yield "Expires", day(study.expires)


def _decision(assessment: Assessment) -> Iterator[Entry]:
    if assessment.allowed:
        yield "Rules", f"The agreement and the policy of {assessment.country} allow it."
        return
    yield "Rules", f"{assessment.country} cannot take part:"
    for finding in assessment.findings:
        yield "", f"- {finding.sentence} [{named(finding.clause)}]"
        yield "", f"{TO_DO}{finding.fix}."
