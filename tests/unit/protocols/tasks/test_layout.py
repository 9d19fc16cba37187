import math

import numpy as np
import pytest
from pydantic import ValidationError

from protocols.errors import ProtocolFault
from protocols.tasks.features import Feature, FeatureKind, by_name
from protocols.tasks.layout import (
    Grouping,
    cell_indices,
    cell_labels,
    encode_rows,
    input_names,
    row_width,
    vector_from_bytes,
    vector_to_bytes,
)
from tests.support.patients import AGE, FEATURES, ILL, SEX, SMOKER, SUGAR, columns

TABLE = by_name(FEATURES)


def test_rows_have_one_coordinate_per_name_and_the_bias_first() -> None:
    inputs = (AGE, SEX, SMOKER, SUGAR)
    names = input_names(inputs)
    rows = encode_rows(inputs, columns(7))
    assert names == (
        "bias",
        "age",
        "sex=female",
        "sex=male",
        "smoker",
        "sugar",
        "sugar is missing",
    )
    assert rows.shape == (7, len(names))
    assert rows.dtype == np.float64
    assert (rows[:, 0] == 1).all()
    assert np.isfinite(rows).all()


def test_no_patients_give_no_rows() -> None:
    assert encode_rows((AGE,), {"age": np.array([])}).shape == (0, 2)


def test_a_vector_is_read_back_from_its_bytes_bit_for_bit() -> None:
    vector = np.array([0.0, -0.0, math.pi, 1e-308, -1e308])
    data = vector_to_bytes(vector)
    assert len(data) == 40
    assert vector_to_bytes(vector_from_bytes(data, 5)) == data
    assert data[16:24] == bytes.fromhex("182d4454fb210940")  # π, little-endian


@pytest.mark.parametrize("size", [0, 7, 15, 17, 24])
def test_a_model_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolFault) as caught:
        vector_from_bytes(bytes(size), 2)
    assert f"{size} bytes" in caught.value.what
    assert "16" in caught.value.what


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ProtocolFault, match="not a finite number"):
        vector_from_bytes(vector_to_bytes(np.array([0.0, value])), 2)


def test_an_edge_belongs_to_the_upper_interval() -> None:
    grouping = Grouping(feature="age", edges=(40, 60))
    assert grouping.labels(AGE) == ("<40", "40 to <60", ">=60")
    ages = np.array([39.9, 40.0, 59.9, 60.0, 1e9, -1e9])
    assert grouping.cells(AGE, ages).tolist() == [0, 1, 1, 2, 2, 0]


def test_a_missing_value_is_a_separate_group_if_it_is_kept() -> None:
    grouping = Grouping(feature="sugar", edges=(100,))
    assert grouping.labels(SUGAR) == ("<100", ">=100", "missing")
    assert grouping.cells(SUGAR, np.array([0.0, 100.0, math.nan])).tolist() == [0, 1, 2]


def test_levels_and_booleans_are_groups() -> None:
    assert Grouping(feature="sex").labels(SEX) == ("female", "male")
    assert Grouping(feature="ill").labels(ILL) == ("false", "true")
    assert Grouping(feature="smoker").cells(SMOKER, np.array([0.0, 1.0, math.nan])).tolist() == [
        0,
        1,
        2,
    ]


def test_edges_ascend() -> None:
    with pytest.raises(ValidationError, match="edges must be in ascending order"):
        Grouping(feature="age", edges=(60, 40))
    with pytest.raises(ValidationError, match="edges must be in ascending order"):
        Grouping(feature="age", edges=(60, 60))


@pytest.mark.parametrize(
    ("grouping", "says"),
    [
        (Grouping(feature="age"), "numeric feature, which needs edges"),
        (Grouping(feature="sex", edges=(1,)), "categorical feature, which has no edges"),
        (Grouping(feature="ill", edges=(1,)), "boolean feature, which has no edges"),
        (Grouping(feature="weight"), "which the study does not declare"),
    ],
)
def test_a_grouping_must_fit_its_feature(grouping: Grouping, says: str) -> None:
    with pytest.raises(ProtocolFault) as caught:
        grouping.check(TABLE, "subgroup")
    assert says in caught.value.what
    assert "subgroup" in caught.value.what
    assert caught.value.fix


def test_each_patient_falls_into_the_cell_that_its_labels_name() -> None:
    groupings = (Grouping(feature="sex"), Grouping(feature="age", edges=(50,)))
    labels = cell_labels(groupings, TABLE)
    data = {"sex": np.array([0.0, 1.0, 1.0]), "age": np.array([20.0, 20.0, 80.0])}
    cells = [labels[cell] for cell in cell_indices(groupings, TABLE, data, 3)]
    assert cells == [("female", "<50"), ("male", "<50"), ("male", ">=50")]


def test_without_grouping_there_is_one_cell() -> None:
    assert cell_labels((), TABLE) == ((),)
    assert cell_indices((), TABLE, {}, 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_sizes_are_the_lengths_of_the_names(feature: Feature) -> None:
    edges = (20, 50) if feature.type is FeatureKind.NUMERIC else ()
    grouping = Grouping(feature=feature.name, edges=edges)
    assert grouping.size(feature) == len(grouping.labels(feature))
    assert row_width([feature]) == len(input_names([feature]))
