"""Explain a study in plain words to the officer who decides on it."""

import textwrap
from collections.abc import Iterator

from governance.documents.agreement import Agreement
from governance.documents.purposes import (
    DATA_CATEGORIES,
    DUO_TERMS,
    EHDS_CODES,
    PURPOSE_OF_USE,
)
from governance.documents.study import ReleaseKind, Study
from governance.policy.assessment import Assessment, Charge
from governance.policy.facts import day, listed, share_of
from governance.runtime.wording import counted
from keys.errors import TO_DO
from protocols.private_sum.context import share_threshold
from protocols.tasks import Condition, Feature, FeatureKind
from protocols.tasks.schedule import CohortThreshold

WIDTH = 92
LABEL = 14

TASKS = {
    "train/glm": "fit one model over all countries, by noisy sums of gradients",
    "train/mlp": "train one neural network over all countries, by noisy sums of gradients",
    "train/module": "train one installed network over all countries, by noisy sums of gradients",
    "stats/count": "count patients, with noise added to every count",
    "stats/histogram": "count patients by the values of one feature, with noise added",
}


def explain_study(study: Study, agreement: Agreement, assessment: Assessment) -> str:
    """Return who asks what, why, of whom, at what cost, and how the result is used."""
    lines = [
        *_asked(study, agreement),
        *_used(study),
        *_cost(study, agreement, assessment.charge),
        *_result(study),
        *_decision(assessment),
    ]
    return "\n".join(lines)


def _asked(study: Study, agreement: Agreement) -> Iterator[str]:
    purpose = study.purpose
    yield from _entry("Study", f"{study.title} ({study.id})")
    yield from _entry("Digest", study.digest)
    yield from _entry("Asked by", agreement.coordinator.name)
    yield from _entry("Question", study.question)
    yield from _entry("Purpose", purpose.sentence)
    yield from _entry("", f"{purpose.ehds}: {EHDS_CODES[purpose.ehds].sentence}")
    use = purpose.purpose_of_use
    yield from _entry("", f"{use}: {PURPOSE_OF_USE[use].sentence}")
    for term in purpose.duo:
        yield from _entry("", f"{term}: {DUO_TERMS[term].sentence}")
    yield from _entry("Legal basis", study.legal_basis)
    yield from _entry("Countries", listed(study.countries))


def _used(study: Study) -> Iterator[str]:
    declared = {feature.name: feature for feature in study.features}
    used = [declared[name] for name in study.features_used]
    yield from _entry("Register", study.population.register_name)
    conditions = [_condition(condition) for condition in study.population.where]
    yield from _entry(
        "Patients", ", ".join(conditions) or "all in the register who have not opted out"
    )
    categories = (DATA_CATEGORIES[code].sentence for code in study.data_categories)
    yield from _entry("Data", listed(categories))
    yield from _entry("Features", listed(map(_feature, used)))
    yield from _entry("Method", f"{study.task.kind}: {TASKS[study.task.kind]}")


def _condition(condition: Condition) -> str:
    if condition.one_of:
        return f"{condition.feature} is {' or '.join(map(str, condition.one_of))}"
    low = f" at least {condition.at_least:g}" if condition.at_least is not None else ""
    high = f" at most {condition.at_most:g}" if condition.at_most is not None else ""
    return f"{condition.feature}{low}{' and' if low and high else ''}{high}"


def _feature(feature: Feature) -> str:
    if feature.type is FeatureKind.CATEGORICAL:
        return f"{feature.name} ({' / '.join(feature.levels)})"
    if feature.type is FeatureKind.BOOLEAN:
        return f"{feature.name} (yes or no)"
    low, high = feature.limits
    unit = f" {feature.unit}" if feature.unit else ""
    return f"{feature.name} ({low:g} to {high:g}{unit})"


def _cost(study: Study, agreement: Agreement, charge: Charge | None) -> Iterator[str]:
    promised = f"ε = {study.privacy.epsilon:g}, δ = {study.privacy.delta:g} for each patient"
    yield from _entry("Privacy", promised)
    n, h, c = len(study.countries), agreement.honest, agreement.colluding
    yield from _entry("", f"{n} countries, {h} honest, {c} may collude with the coordinator")
    yield from _entry("", _fewest(study, agreement))
    if study.local_mode is not None:
        yield from _entry("Local mode", study.local_mode.sentence(h))
    if charge is None:
        yield from _entry(
            "Budget", "not known: the study has no valid schedule, or the register no budget"
        )
        return
    yield from _entry("Cohort", _cohort(study, agreement))
    yield from _entry("Computed", f"ε = {charge.epsilon:.4g} at δ = {charge.delta:g}")
    share = share_of(charge.micro, charge.cap_micro)
    left = share_of(max(0, charge.left_micro - charge.micro), charge.cap_micro)
    yield from _entry("Budget", f"costs {share} of this period's budget; {left} would be left")


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
        f"{sentence}; the count costs ε = {stated.epsilon:g}, δ = {stated.delta:g} more, once for "
        "all studies of this population"
    )


def _fewest(study: Study, agreement: Agreement) -> str:
    """Return how many countries a sum needs at least, in one sentence."""
    n = len(study.countries)
    fewest = max(agreement.smallest_countries, share_threshold(n, agreement.colluding))
    if n < fewest:
        return f"no run can begin: a sum needs {fewest} countries"
    if n == fewest:
        return "a sum is opened over all of them, or not at all"
    return f"a sum is opened over at least {fewest} of them"


def _result(study: Study) -> Iterator[str]:
    release = study.release
    what = "a model" if release.what is ReleaseKind.MODEL else "a table of noisy counts"
    yield from _entry("Result", f"{what}, to {listed(study.recipients)}")
    yield from _entry("Audience", release.audience)
    yield from _entry("Kept", counted(release.keep_days, "day"))
    yield from _entry("Expires", day(study.expires))


def _decision(assessment: Assessment) -> Iterator[str]:
    yield ""
    if assessment.allowed:
        yield f"The agreement and the policy of {assessment.country} allow it."
        return
    yield f"{assessment.country} cannot take part:"
    for finding in assessment.findings:
        yield from _wrapped(f"- {finding.sentence} [{finding.clause}]", 2)
        yield from _wrapped(f"  {TO_DO}{finding.fix}.", 2)


def _entry(label: str, text: str) -> list[str]:
    first = f"{label:<{LABEL}}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * LABEL)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent)
