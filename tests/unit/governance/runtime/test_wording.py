"""Numbers and nouns in sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.runtime.wording import (
    counted,
    interval_text,
    lines_text,
    percent,
    rounded_up,
    with_article,
    without_country,
)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 patients"), (1, "1 patient"), (2, "2 patients")]
)
def test_a_noun_follows_its_number(number: int, text: str) -> None:
    assert counted(number, "patient") == text


def test_an_irregular_plural_is_given() -> None:
    assert counted(1, "country", "countries") == "1 country"
    assert counted(3, "country", "countries") == "3 countries"


@pytest.mark.parametrize("noun", ["an agreement", "a study", "a permit"])
def test_an_article_follows_the_first_letter(noun: str) -> None:
    assert with_article(noun.split()[1]) == noun


def test_a_percentage_has_one_digit_and_a_space() -> None:
    assert percent(0.0344) == "3.4 %"


def test_a_country_at_the_beginning_is_not_repeated() -> None:
    assert without_country("EE has given no permit.", "EE") == "has given no permit."
    assert without_country("The permit of EE expired.", "EE") == "The permit of EE expired."


def test_an_interval_is_shown_rounded_outwards() -> None:
    assert interval_text({"value": 0.82251, "low": 0.7998, "high": 0.84001}) == (
        "0.823  [0.799, 0.841]"
    )
    assert interval_text({"value": 0.57, "low": 0.57, "high": 0.57}) == "0.570  [0.570, 0.570]"
    assert interval_text({"value": 0.0, "low": -0.0001, "high": 0.0}) == "0.000  [-0.001, 0.000]"
    small = {"value": -0.0004, "low": -0.0006, "high": -0.0002}
    assert interval_text(small) == "0.000  [-0.001, 0.000]"
    assert interval_text({"value": 34.04, "low": 31.26, "high": 37.0}, 1) == "34.0  [31.2, 37.0]"


@given(st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False))
def test_a_cost_is_never_shown_as_less_and_hardly_as_more(cost: float) -> None:
    shown = float(rounded_up(cost))
    assert shown >= cost
    assert shown <= cost * 1.001 + 5e-324


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (0.99911, "0.9992"),
        (0.9999999, "1"),
        (1.0, "1"),
        (0.1, "0.1"),
        (12344.2, "12350"),
        (1.2341e-05, "1.235e-05"),
        (0.0, "0"),
        (5e-324, "5e-324"),
    ],
)
def test_a_cost_has_four_digits(cost: float, text: str) -> None:
    assert rounded_up(cost) == text


def test_lines_are_named_and_the_rest_of_many_is_not() -> None:
    assert lines_text([3]) == "line 3"
    assert lines_text([3, 5]) == "lines 3, 5"
    assert lines_text(range(2, 12)) == "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    assert lines_text(range(2, 13)) == "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …"
