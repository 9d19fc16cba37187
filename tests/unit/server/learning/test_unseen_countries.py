import math

import pytest

from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import country_feature
from server.learning.unseen_countries import country_reader, unseen_countries
from tests.support.patients import FEATURES, INPUTS, glm

BASELINES = CountryBaselines(countries=("DK", "NO"))
TASK = glm(inputs=(*INPUTS, "country"), by_country=True)
READ = country_reader((*FEATURES, country_feature(("DK", "EE", "NO"))), BASELINES)


def test_a_country_that_trained_the_model_has_its_level() -> None:
    assert [READ("DK"), READ(" NO ")] == [0.0, 2.0]


@pytest.mark.parametrize("text", ["", " ", "?", "EE", "FR"])
def test_any_other_country_or_none_gets_the_rule(text: str) -> None:
    assert math.isnan(READ(text))


@pytest.mark.parametrize("text", ["dk", "Denmark", "D", "DNK", "NO,DK", "\u0394K", "1"])
def test_a_text_that_is_no_country_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="code of a country, such as DE, or nothing"):
        READ(text)


def test_a_note_names_the_lines_of_each_country_that_was_not_there() -> None:
    rows = [(n, {"country": text}) for n, text in enumerate(["DK", "FR", "", "EE", "FR", "?"], 2)]
    rule = "so the model uses the mean of the intercepts of DK, NO"
    assert list(unseen_countries(TASK, BASELINES, rows)) == [
        f"column `country`: the model was not trained in `FR`, {rule}; 2 rows, lines 3, 6",
        f"column `country`: it is empty, {rule}; 2 rows, lines 4, 7",
        f"column `country`: the model was not trained in `EE`, {rule}; 1 row, line 5",
    ]


def test_a_long_list_of_lines_is_cut_and_counted() -> None:
    (note,) = unseen_countries(TASK, BASELINES, [(n, {"country": "FR"}) for n in range(2, 32)])
    assert note.endswith("30 rows, lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …")
