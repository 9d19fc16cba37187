"""The page `docs/by-country.md` quotes the texts of the program, and its pieces are valid."""

import math
import re
from pathlib import Path

import pytest
import yaml

from governance.cedar.engine import Act, check_national
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.officer.agreement_text import agreement_in_words
from governance.policy.assessment import assess
from governance.policy.by_country import OWN_SUM_VISIBLE
from protocols.tasks import TASK_KINDS
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import country_feature
from protocols.tasks.evaluation import Evaluation
from server.learning.unseen_countries import country_reader
from server.services.country_drafts import with_country
from tests.support.documents import NOW, agreement, study, study_fields
from tests.support.patients import FEATURES, glm

PAGE = (Path(__file__).parents[2] / "docs" / "by-country.md").read_text()
TEXT = " ".join(PAGE.split())


def test_the_quoted_texts_are_those_of_the_program() -> None:
    parts = agreement_in_words(agreement(by_country=True), "DK")
    [term] = [f["a country's own sum"] for p in parts if "a country's own sum" in (f := p.facts)]
    assert term.split(" (by_country)", maxsplit=1)[0] in TEXT
    assert OWN_SUM_VISIBLE in TEXT
    sentence = CountryBaselines(countries=("DK",)).sentence(glm(), ())
    assert sentence.removesuffix("DK.") in TEXT


def test_the_rule_that_forbids_it_for_good_is_a_national_policy() -> None:
    [policy] = re.findall(r"```cedar\n(.*?)```", PAGE, re.DOTALL)
    check_national(policy)
    agreed = agreement(by_country=True)
    assert {"national/dk/no-by-country"} == refusals(agreed, by_country_study(agreed), policy)
    assert refusals(agreed, study(agreed), policy) == set()


def refusals(agreed: Agreement, asked: Study, policy: str) -> set[str]:
    """Return the clauses that refuse a study under this national policy, before a permit."""
    assessment = assess(
        asked,
        agreed,
        country="DK",
        now=NOW,
        act=Act.PROPOSE,
        national=policy,
        installed_tasks=TASK_KINDS,
    )
    return {finding.clause for finding in assessment.findings}


def by_country_study(agreed: Agreement) -> Study:
    task = {"kind": "stats/count", "by_country": True, "patients_bound": 10_000}
    fields = with_country(study_fields(agreed) | {"task": task})
    return study(agreed, features=fields["features"], task=fields["task"])


def test_the_line_of_the_task_is_what_a_draft_is_completed_by() -> None:
    [task] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    values = with_country(yaml.safe_load(task) | {"countries": ["DK", "EE"]})
    assert values["features"][0]["levels"] == ["DK", "EE"]


def test_the_edges_for_countries_that_differ_can_be_declared() -> None:
    [edges] = re.findall(r"`edges: (\[[^`]*\])`", TEXT)
    evaluation = Evaluation(edges=tuple(yaml.safe_load(edges)))
    assert min(evaluation.edges) < 0.01
    assert max(evaluation.edges) > 0.2
    glm(evaluation=evaluation).check(FEATURES)


def test_what_is_said_of_the_column_country_is_what_is_read() -> None:
    features = (country_feature(("DK", "EE")),)
    read = country_reader(features, CountryBaselines(countries=("DK", "EE")))
    assert "Every text of two capital letters counts as a country" in TEXT
    assert math.isnan(read("NA")), "the code of Namibia, as the page says"
    with pytest.raises(ValueError, match="code of a country"):
        read("Denmark")
