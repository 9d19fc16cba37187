import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from protocols.errors import ProtocolFault
from protocols.tasks.features import (
    Condition,
    Feature,
    Missing,
    by_name,
    lookup,
    parse_number,
    parse_truth,
    parse_value,
)
from protocols.wire.encoding import canonical_json
from tests.support.patients import AGE, FEATURES, ILL, SEX, SMOKER, SUGAR

NAN = math.nan


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Feature(**fields)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"type": "numeric"},
            "feature `x`: a numeric feature needs public bounds, such as `bounds: [0, 120]`",
        ),
        (
            {"type": "numeric", "bounds": (5, 5)},
            "feature `x`: the lower bound must be below the upper bound",
        ),
        (
            {"type": "numeric", "bounds": (0, 1), "centre": 0.5},
            "feature `x`: declare centre and spread together, or neither",
        ),
        (
            {"type": "numeric", "bounds": (0, 1), "centre": 7, "spread": 1},
            "feature `x`: centre must be within the bounds",
        ),
        (
            {"type": "numeric", "bounds": (0, 1), "levels": ("a", "b")},
            "feature `x`: only a categorical feature has levels",
        ),
        ({"type": "boolean", "bounds": (0, 1)}, "feature `x`: only a numeric feature has bounds"),
        (
            {"type": "categorical", "levels": ("a",)},
            "feature `x`: needs two or more distinct levels",
        ),
        (
            {"type": "categorical", "levels": ("a", "a")},
            "feature `x`: needs two or more distinct levels",
        ),
        (
            {"type": "categorical", "levels": ("a", "b"), "centre": 1, "spread": 1},
            "feature `x`: a categorical feature has no centre or spread",
        ),
        (
            {"type": "boolean", "missing": "impute"},
            "feature `x`: `missing: impute` needs a public fill value",
        ),
        (
            {"type": "boolean", "fill": True},
            "feature `x`: fill is used with `missing: impute` only",
        ),
        (
            {"type": "boolean", "missing": "impute", "fill": "yes"},
            "feature `x`: fill must be a value that the feature can have",
        ),
        (
            {"type": "numeric", "bounds": (0, 1), "missing": "impute", "fill": 2},
            "feature `x`: fill must be a value that the feature can have",
        ),
        (
            {"type": "numeric", "bounds": (0, 1), "missing": "impute", "fill": True},
            "feature `x`: fill must be a value that the feature can have",
        ),
        (
            {"type": "categorical", "levels": ("a", "b"), "missing": "impute", "fill": "c"},
            "feature `x`: fill must be a value that the feature can have",
        ),
    ],
)
def test_an_incomplete_feature_gives_a_clear_error(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(name="x", **fields)


@pytest.mark.parametrize("name", ["", "Age", "1st", "a b", "a" * 65, "naïve", "a;b"])
def test_a_name_is_a_plain_slug(name: str) -> None:
    assert "match pattern" in refusal(name=name, type="boolean")


def test_unknown_fields_and_infinite_bounds_are_refused() -> None:
    assert "Extra inputs" in refusal(name="x", type="boolean", secret=1)
    assert "finite" in refusal(name="x", type="numeric", bounds=(0, math.inf))


def test_numbers_are_clipped_to_the_public_bounds_then_scaled() -> None:
    encoded = AGE.encode(np.array([50.0, 60.0, -1e9, 1e9]))
    assert encoded.tolist() == [[0.0], [1.0], [-5.0], [5.0]]


def test_without_centre_the_bounds_become_minus_one_and_one() -> None:
    plain = Feature(name="x", type="numeric", bounds=(10, 30))
    assert plain.encode(np.array([10.0, 20.0, 30.0])).tolist() == [[-1.0], [0.0], [1.0]]


def test_unscaled_undoes_scaled_within_the_bounds() -> None:
    values = np.array([0.0, 33.3, 100.0])
    assert np.allclose(AGE.unscaled(AGE.scaled(values)), values)


def test_a_boolean_is_minus_one_or_one_and_its_fill_may_lie_between() -> None:
    assert SMOKER.encode(np.array([0.0, 1.0, NAN])).tolist() == [[-1.0], [1.0], [0.0]]
    sure = Feature(name="x", type="boolean", missing="impute", fill=True)
    assert sure.encode(np.array([NAN])).tolist() == [[1.0]]


def test_a_category_is_one_hot_and_fills_with_a_level() -> None:
    filled = SEX.model_copy(update={"missing": Missing.IMPUTE, "fill": "male"})
    assert filled.encode(np.array([0.0, 1.0, NAN])).tolist() == [[1, 0], [0, 1], [0, 1]]


def test_an_indicator_distinguishes_missing_from_zero() -> None:
    encoded = SUGAR.encode(np.array([200.0, NAN, 0.0]))
    assert encoded.tolist() == [[0.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    category = SEX.model_copy(update={"missing": Missing.INDICATOR})
    assert category.encode(np.array([NAN, 1.0])).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_an_excluded_patient_is_never_a_number() -> None:
    assert np.isnan(AGE.encode(np.array([NAN]))).all()
    assert np.isnan(SEX.encode(np.array([NAN]))).all()


def test_coordinate_names_say_what_each_number_is() -> None:
    assert SEX.coordinate_names == ("sex=female", "sex=male")
    assert SUGAR.coordinate_names == ("sugar", "sugar is missing")
    for feature in FEATURES:
        assert feature.encode(np.array([0.0])).shape == (1, len(feature.coordinate_names))


def test_a_feature_is_read_back_from_its_canonical_form() -> None:
    for feature in FEATURES:
        data = canonical_json(feature.model_dump(mode="json"))
        again = Feature.model_validate_json(data, strict=True)
        assert again == feature
        assert canonical_json(again.model_dump(mode="json")) == data


@pytest.mark.parametrize(
    ("text", "value"),
    [("63", 63.0), ("-2.5", -2.5), (".7", 0.7), ("1e3", 1000.0), ("+4.", 4.0), ("007", 7.0)],
)
def test_plain_decimals_are_read(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["inf", "nan", "1_000", "0x10", "12a", "--1", "", "1e", "١٢", "9" * 400, "1e999", "1 2"]
)
def test_other_numbers_than_plain_decimals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        parse_number(text)


def test_a_decimal_comma_is_named() -> None:
    with pytest.raises(ValueError, match="with a point and not a comma"):
        parse_number("2,5")


def test_booleans_are_read_from_a_short_list_of_words() -> None:
    assert [parse_truth(word) for word in ("true", "YES", "1")] == [1.0] * 3
    assert [parse_truth(word) for word in ("False", "no", "0")] == [0.0] * 3
    with pytest.raises(ValueError, match="expected true or false"):
        parse_truth("maybe")


def test_values_are_read_in_the_units_of_the_study() -> None:
    assert parse_value(AGE, " 63 ") == 63.0
    assert parse_value(SEX, "male") == 1.0
    assert parse_value(ILL, "yes") == 1.0
    assert math.isnan(parse_value(AGE, "?"))
    assert math.isnan(parse_value(SEX, " "))
    with pytest.raises(ValueError, match="expected one of female, male"):
        parse_value(SEX, "M")


def test_a_range_includes_its_ends_and_excludes_missing_values() -> None:
    condition = Condition(feature="age", at_least=40, at_most=60)
    met = condition.met(AGE, np.array([39.9, 40.0, 60.0, 60.1, NAN]))
    assert met.tolist() == [False, True, True, False, False]


def test_one_of_accepts_levels_or_booleans() -> None:
    assert Condition(feature="sex", one_of=("male",)).met(
        SEX, np.array([0.0, 1.0, NAN])
    ).tolist() == [False, True, False]
    assert Condition(feature="ill", one_of=(True,)).met(
        ILL, np.array([0.0, 1.0, NAN])
    ).tolist() == [False, True, False]


@pytest.mark.parametrize("fields", [{}, {"at_least": 1, "one_of": ("a",)}])
def test_a_condition_has_one_form(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give at_least and/or at_most, or one_of"):
        Condition(feature="age", **fields)


@pytest.mark.parametrize(
    ("condition", "feature", "why"),
    [
        (Condition(feature="age", one_of=("old",)), AGE, "limited by at_least or at_most"),
        (Condition(feature="sex", at_least=1), SEX, "limited by one_of"),
        (Condition(feature="sex", one_of=("other",)), SEX, "`other` is not a value"),
        (Condition(feature="sex", one_of=(True,)), SEX, "`True` is not a value"),
        (Condition(feature="ill", one_of=("yes",)), ILL, "`yes` is not a value"),
    ],
)
def test_a_condition_must_fit_its_feature(condition: Condition, feature: Feature, why: str) -> None:
    with pytest.raises(ProtocolFault) as caught:
        condition.check(feature)
    assert f"condition on `{feature.name}` does not fit" in caught.value.what
    assert why in caught.value.why
    assert caught.value.fix


def test_a_fitting_condition_passes() -> None:
    Condition(feature="age", at_least=1).check(AGE)
    Condition(feature="sex", one_of=("male",)).check(SEX)
    Condition(feature="ill", one_of=(False,)).check(ILL)


def test_lookup_names_the_unknown_feature_and_the_declared_ones() -> None:
    with pytest.raises(ProtocolFault) as caught:
        lookup(by_name((AGE, SEX)), "hight", "list of inputs")
    assert "`hight`" in caught.value.what
    assert "list of inputs" in caught.value.what
    assert caught.value.why == "declared are: age, sex"
    assert "spelling" in caught.value.fix


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(ProtocolFault, match="Two features have the same name"):
        by_name((AGE, AGE))
