from typing import Any

import pytest

from governance.documents.study import Study
from governance.policy.assessment import Act, Assessment, assess
from governance.policy.explain import explain_study
from tests.support.documents import (
    COUNTRIES,
    NOW,
    agreement,
    permit,
    study,
    study_fields,
    training_fields,
)

AGREED = agreement()
ASKED = study(AGREED)


def assessed(proposed: Study, *, act: Act = Act.PROPOSE) -> Assessment:
    return assess(
        proposed, AGREED, country="DK", now=NOW, act=act, installed_tasks=["stats/histogram"]
    )


def explained(proposed: Study = ASKED, *, act: Act = Act.PROPOSE) -> str:
    return text_of(explain_study(proposed, AGREED, assessed(proposed, act=act)))


def text_of(entries: list[tuple[str, str]]) -> str:
    return "\n".join(f"{label:14}{text}" for label, text in entries)


def test_the_text_says_who_asks_which_question_for_which_purpose() -> None:
    text = explained()
    for expected_text in (
        "Regional institute",
        "How many patients have heart disease, by sex?",
        "To plan a larger study of heart disease.",
        "53-1-e: scientific research in health or care",
        "DSRCH: research into a named disease",
        "GDPR Art. 6(1)(e) and 9(2)(j)",
        "DK, EE, NO, PT",
        ASKED.digest,
    ):
        assert expected_text in text


def test_the_text_names_the_data_and_the_patients() -> None:
    text = explained()
    assert "age (0 to 120); coded as (value - 60) / 60; patients without it are left out" in text
    assert "disease (yes or no)" in text
    assert 'sex ("female", "male")' in text
    assert "age at least 40" in text
    assert "electronic health records" in text


def test_the_text_states_the_cost_and_the_remaining_budget() -> None:
    charge = assessed(ASKED).charge
    assert charge is not None
    share = 100 * charge.micro / charge.cap_micro
    assert (
        f"costs {share:.1f} % of this period's budget; {100 - share:.1f} % would be left"
        in explained()
    )
    assert "ε = 0.5, δ = 1e-05 for each patient" in explained()


@pytest.mark.parametrize(
    ("changes", "countries", "expected"),
    [
        ({}, COUNTRIES, "a sum is opened over at least 3 of them"),
        ({"honest": 3, "smallest_countries": 4}, COUNTRIES, "over all of them, or not at all"),
        ({}, COUNTRIES[:3], "over all of them, or not at all"),
        ({}, COUNTRIES[:2], "no run can begin"),
    ],
)
def test_the_text_states_over_how_many_countries_a_sum_is_opened(
    changes: dict[str, Any], countries: tuple[str, ...], expected: str
) -> None:
    agreed = agreement(**changes)
    proposed = study(agreed, countries=list(countries))
    unpriced = proposed.with_mechanisms(())
    assessment = assess(
        proposed, agreed, country="DK", now=NOW, act=Act.PROPOSE, installed_tasks=[]
    )
    assert expected in text_of(explain_study(proposed, agreed, assessment))
    assert expected in text_of(explain_study(unpriced, agreed, assessment)), (
        "the text does not depend on costs"
    )


def test_the_text_states_what_local_mode_relies_on_and_costs() -> None:
    task = {
        "kind": "train/glm",
        "family": "logistic",
        "target": "disease",
        "rounds": 10,
        "learning_rate": 0.5,
        "patients": 1_000,
        "patients_bound": 10_000,
    }
    release = {"what": "model", "keep_days": 10, "audience": "parties"}
    shared = study(AGREED, task=task, release=release)
    local = study(AGREED, task=task | {"local": {"steps": 5}}, release=release)
    text = " ".join(explained(local).split())
    assert "Local mode Each country takes 5 steps of training by itself in every round" in text
    assert "by its own noise alone" in text
    assert f"only an evaluation relies on h={AGREED.honest}" in text
    assert "1.41 times less noise" in text
    assert "Local mode" not in explained(shared)


def test_the_text_states_what_is_released_to_whom_and_for_how_long() -> None:
    text = explained()
    assert 'a table of noisy counts, to "Regional institute"' in text
    assert "the public" in text
    assert "365 days" in text
    assert "2026-12-31 00:00 UTC" in text


def test_the_last_part_says_yes_or_why_not() -> None:
    assert explained().endswith("The agreement and the policy of DK allow it.")
    refused = explained(act=Act.CONTRIBUTE)
    assert "DK cannot take part:" in refused
    assert "[permit/missing]" in refused
    assert "To do: ask the privacy officer of DK" in refused


def test_a_study_without_a_schedule_says_so() -> None:
    assert "not known" in explained(Study.model_validate(study_fields(AGREED)))


def test_a_population_without_conditions_and_one_with_several() -> None:
    assert "all in the register who have not opted out" in explained(
        study(AGREED, population={"register": "patients"})
    )
    where = [
        {"feature": "age", "at_least": 40, "at_most": 80},
        {"feature": "sex", "one_of": ["female"]},
    ]
    text = explained(study(AGREED, population={"register": "patients", "where": where}))
    assert "age at least 40 and at most 80, sex is female" in text


def test_an_existing_permit_does_not_change_the_explanation() -> None:
    given = assess(
        ASKED,
        AGREED,
        country="DK",
        now=NOW,
        permit=permit(AGREED, ASKED),
        installed_tasks=["stats/histogram"],
    )
    assert text_of(explain_study(ASKED, AGREED, given)).endswith("allow it.")


def test_the_text_says_whether_training_and_evaluation_are_added() -> None:
    fields = training_fields(3, evaluation={"held_out": 0.3})
    larger = explained(study(AGREED, accounting=2, **fields))
    assert "a patient pays the larger of training and evaluation, not their sum" in larger
    added = explained(study(AGREED, **fields))
    assert "a patient pays for training and for evaluation, added up (accounting 1)" in added
    assert "a patient pays for every release" in explained()
