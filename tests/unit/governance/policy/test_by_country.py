from governance.documents.study import Study
from governance.policy.by_country import OWN_SUM_VISIBLE, names_countries, own_sum_in_words
from governance.policy.explain import explain_study
from tests.support.documents import COUNTRIES, agreement, study, study_fields
from tests.unit.governance.policy.test_explain import assessed

AGREED = agreement(by_country=True)


def by_country() -> Study:
    features = study_fields(AGREED)["features"]
    country = {"name": "country", "type": "categorical", "levels": list(COUNTRIES)}
    strata = {"strata": [{"feature": "country"}], "by_country": True, "patients_bound": 10_000}
    return study(AGREED, features=[*features, country], task={"kind": "stats/count"} | strata)


def test_officers_read_that_their_own_sum_is_visible() -> None:
    asked = by_country()
    texts = dict(explain_study(asked, AGREED, assessed(asked)))
    assert texts["By country"].startswith(
        "your country's own sum is visible, with noise only: a part of each sum"
    )
    assert texts["Filled in"].startswith('country ("DK", "EE", "NO", "PT"): filled in by each node')


def test_a_study_without_it_says_nothing_of_it() -> None:
    asked = study(AGREED)
    assert own_sum_in_words(asked) == ""
    texts = " ".join(text for _, text in explain_study(asked, AGREED, assessed(asked)))
    assert OWN_SUM_VISIBLE not in texts


def test_a_recorded_feature_whose_values_are_countries_is_pointed_out() -> None:
    asked = by_country()
    task = asked.task.model_copy(update={"by_country": False})
    ordinary = study(AGREED, features=[f.model_dump() for f in asked.features], task=task)
    texts = " ".join(text for _, text in explain_study(ordinary, AGREED, assessed(ordinary)))
    assert "country has countries as values: sums by it show each country's own part" in texts
    assert names_countries(asked) == names_countries(study(AGREED)) == ()
