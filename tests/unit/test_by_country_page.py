"""The page `docs/by-country.md` quotes the texts of the program, and its pieces are valid."""

import re
from pathlib import Path

import yaml

from governance.cedar.engine import check_national
from governance.officer.agreement_text import agreement_in_words
from governance.policy.by_country import OWN_SUM_VISIBLE
from protocols.tasks.baselines import CountryBaselines
from server.services.country_drafts import with_country
from tests.support.documents import agreement
from tests.support.patients import glm

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
    [rule] = re.findall(r"`(forbid [^`]*)`", TEXT)
    check_national(f'@id("dk/none") @sentence("None.")\n{rule}')


def test_the_line_of_the_task_is_what_a_draft_is_completed_by() -> None:
    [task] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    values = with_country(yaml.safe_load(task) | {"countries": ["DK", "EE"]})
    assert values["features"][0]["levels"] == ["DK", "EE"]
