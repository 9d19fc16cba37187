"""Each problem of a document is one sentence: the field, what is expected, and what was found."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from governance.documents.problems import MAX_PROBLEMS, SHOWN, Places, sentences
from governance.documents.study import Study
from tests.support.documents import agreement, study_fields

Change = Callable[[dict[str, Any]], object]


def problems_of(change: Change, places: Places | None = None) -> list[str]:
    fields = study_fields(agreement())
    change(fields)
    with pytest.raises(ValidationError) as error:
        Study.model_validate(fields)
    return list(sentences(Study, error.value, fields, places or {}))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda f: f.pop("title"), "title: this field is missing; add it"),
        (lambda f: f.update(titel="x"), "titel: there is no such field here; did you mean"),
        (
            lambda f: f["privacy"].update(epsilon=0),
            "privacy.epsilon: expected a number above 0, found 0",
        ),
        (lambda f: f.update(title=7), "title: expected text, found 7"),
        (lambda f: f.update(features="age"), "features: expected a list, found 'age'"),
        (lambda f: f.update(privacy=None), "privacy: expected fields, each written `name: value`"),
        (
            lambda f: f["task"].update(kind="stats/mean"),
            "expected one of",
        ),
        (lambda f: f["task"].pop("kind"), "task: the field `kind` is missing; add it"),
        (
            lambda f: f["task"].update(stratum=[]),
            "task.stratum: there is no such field here; did you mean",
        ),
        (
            lambda f: f["features"][0].update(bound=[0, 1]),
            "features[0].bound: there is no such field here; did you mean",
        ),
        (
            lambda f: f["population"].update(register="The Register"),
            "population.register: expected lower-case letters, digits and hyphens",
        ),
    ],
)
def test_a_problem_names_the_field_and_what_is_expected(change: Change, part: str) -> None:
    problems = problems_of(change)
    assert any(part in sentence for sentence in problems), problems


def test_the_line_number_is_that_of_the_nearest_known_field() -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["privacy"].pop("delta")

    (sentence,) = problems_of(change, {("privacy",): (12, 3)})
    assert sentence.startswith("line 12, column 3, privacy.delta: ")


def test_a_wrong_value_is_shortened_and_shown_without_invisible_characters() -> None:
    (sentence,) = problems_of(lambda f: f["privacy"].update(epsilon="\u202e" + "x" * 500))
    value_text = sentence.partition("found ")[2]
    assert "\u202e" not in sentence
    assert len(value_text) <= SHOWN + 1


def test_problems_beyond_the_limit_are_only_counted() -> None:
    problems = problems_of(lambda f: f.update({f"extra{n}": n for n in range(MAX_PROBLEMS + 5)}))
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == "and 5 more"


def test_a_list_with_invalid_items_is_not_also_reported_as_too_short() -> None:
    problems = problems_of(lambda f: f.update(countries=["DK", "Estonia"]))
    assert not any("at least" in sentence for sentence in problems)
