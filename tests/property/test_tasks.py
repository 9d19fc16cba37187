"""Encodings, layouts and contributions have their stated properties for any feature and value."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.records.cohort import Cohort
from client.tasks.trainers import patient_gradients
from protocols.errors import ProtocolFault
from protocols.numerics.rounding import round_each
from protocols.tasks import Family, Feature, FeatureKind, Missing
from protocols.tasks.by_country import COUNTRY, country_feature
from protocols.tasks.features import DECIMAL, parse_number
from protocols.tasks.layout import (
    Grouping,
    cell_indices,
    cell_labels,
    vector_from_bytes,
    vector_to_bytes,
)
from protocols.wire.encoding import canonical_json
from server.learning.optimiser import OptimiserState
from tests.support.examples import examples
from tests.support.patients import AGE, FEATURES, ILL, entropy, glm, release, score_counts

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)
VALUES = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def features(draw: st.DrawFn, kind: FeatureKind | None = None) -> Feature:
    kind = kind or draw(st.sampled_from(FeatureKind))
    missing = draw(st.sampled_from(Missing))
    fields: dict[str, object] = {"name": "x", "type": kind, "missing": missing}
    fill: object = draw(st.booleans())
    if kind is FeatureKind.NUMERIC:
        low = draw(st.floats(-1e6, 1e6))
        high = low + draw(st.floats(1e-3, 1e6))
        fields["bounds"] = (low, high)
        fill = draw(st.floats(low, high))
        if draw(st.booleans()):
            fields |= {"centre": draw(st.floats(low, high)), "spread": draw(st.floats(1e-3, 1e6))}
    if kind is FeatureKind.CATEGORICAL:
        levels = draw(
            st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), min_size=2, unique=True)
        )
        fields["levels"] = tuple(levels)
        fill = draw(st.sampled_from(levels))
    if missing is Missing.IMPUTE:
        fields["fill"] = fill
    return Feature.model_validate(fields)


def column_of(
    feature: Feature, draw: Callable[[st.SearchStrategy[list[float]]], list[float]]
) -> np.ndarray:
    if feature.type is FeatureKind.NUMERIC:
        values = st.one_of(NUMBERS, st.just(math.nan))
    else:
        most = len(feature.levels) - 1 if feature.levels else 1
        values = st.one_of(st.integers(0, most).map(float), st.just(math.nan))
    return np.array(draw(st.lists(values, max_size=20)), dtype=np.float64)


@given(features())
def test_every_feature_survives_its_canonical_form(feature: Feature) -> None:
    data = canonical_json(feature.model_dump(mode="json"))
    again = Feature.model_validate_json(data, strict=True)
    assert again == feature
    assert canonical_json(again.model_dump(mode="json")) == data


@given(st.data())
def test_every_value_is_encoded_within_the_public_bounds(data: st.DataObject) -> None:
    feature = data.draw(features())
    column = column_of(feature, data.draw)
    block = feature.encode(column)
    assert block.shape == (len(column), len(feature.coordinate_names))
    included = ~np.isnan(column) | (feature.missing is not Missing.EXCLUDE)
    assert np.isfinite(block[included]).all()
    if feature.type is FeatureKind.NUMERIC:
        low, high = feature.scaled(np.array(feature.limits))
        inside = block[included][:, 0]
        slack = 1e-9 * (1 + abs(low) + abs(high))
        assert ((inside >= min(low, 0) - slack) & (inside <= max(high, 0) + slack)).all()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50))
def test_vectors_survive_their_bytes(values: list[float]) -> None:
    vector = np.array(values, dtype=np.float64)
    data = vector_to_bytes(vector)
    assert vector_to_bytes(vector_from_bytes(data, len(values))) == data


@given(st.lists(NUMBERS, min_size=1, max_size=6, unique=True), st.lists(VALUES, max_size=30))
def test_every_value_falls_into_exactly_one_interval(
    edges: list[float], values: list[float]
) -> None:
    feature = Feature(name="x", type="numeric", bounds=(-1, 1), missing="indicator")
    grouping = Grouping(feature="x", edges=tuple(sorted(edges)))
    labels = grouping.labels(feature)
    cells = grouping.cells(feature, np.array(values, dtype=np.float64))
    cuts = [-math.inf, *sorted(edges), math.inf]
    for value, cell in zip(values, cells, strict=True):
        if math.isnan(value):
            assert labels[cell] == "missing"
        else:
            assert cuts[cell] <= value <= cuts[cell + 1]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=30))
def test_cells_of_a_cross_product_name_their_labels(pairs: list[tuple[int, int]]) -> None:
    table = {f.name: f for f in FEATURES}
    groupings = (Grouping(feature="sex"), Grouping(feature="stage"))
    data = {
        "sex": np.array([a for a, _ in pairs], dtype=np.float64),
        "stage": np.array([b for _, b in pairs], dtype=np.float64),
    }
    labels = cell_labels(groupings, table)
    cells = cell_indices(groupings, table, data, len(pairs))
    expected = [(table["sex"].levels[a], table["stage"].levels[b]) for a, b in pairs]
    assert [labels[cell] for cell in cells] == expected
    assert len(set(labels)) == len(labels)


@given(st.one_of(st.text(max_size=40), st.text("0123456789+-.eE,_", max_size=12)))
def test_a_number_is_read_finite_or_refused(text: str) -> None:
    if DECIMAL.fullmatch(text) and abs(float(text)) < 1e300:
        assert parse_number(text) == float(text)
    else:
        with pytest.raises(ValueError, match="expected a number"):
            parse_number(text)


@st.composite
def people(draw: st.DrawFn) -> Cohort:
    count = draw(st.integers(0, 8))

    def random_column(values: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype=np.float64)

    level = st.integers(0, 1).map(float)
    columns = {
        "age": random_column(st.floats(-1e300, 1e300)),
        "sex": random_column(level),
        "smoker": random_column(st.one_of(level, st.just(math.nan))),
        "sugar": random_column(VALUES),
        "ill": random_column(level),
        "pressure": random_column(st.floats(-1e300, 1e300)),
        "stage": random_column(st.integers(0, 2).map(float)),
    }
    return Cohort(FEATURES, tuple(f"p{n}" for n in range(count)), columns)


@settings(max_examples=examples(60))
@given(people(), st.sampled_from(Family), st.floats(-1e6, 1e6))
def test_no_patient_contributes_more_than_the_accounted_sensitivity(
    cohort: Cohort, family: Family, weight: float
) -> None:
    task = glm(family)
    model = np.full(task.dimension(FEATURES), weight)
    for phase, vectors in (
        ("train", patient_gradients(task, cohort, model)),
        ("evaluate", score_counts(task, cohort, model)),
    ):
        mechanism = release(task, phase)
        assert np.isfinite(vectors).all()
        for row in round_each(vectors, mechanism, entropy=entropy()).tolist():
            assert sum(value * value for value in row) <= mechanism.squared_sensitivity


@given(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), st.integers(0, 2**40), st.data())
def test_a_stored_state_is_complete_or_refused(
    values: list[float], rounds: int, data: st.DataObject
) -> None:
    vector = np.array(values)
    stored = OptimiserState(rounds, vector, -vector, 2 * vector, 7).to_bytes()
    assert OptimiserState.from_bytes(stored).to_bytes() == stored
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(ProtocolFault, match="stored optimiser state"):
        OptimiserState.from_bytes(stored[:cut])


@given(st.data())
def test_a_country_s_own_block_lengthens_no_contribution(data: st.DataObject) -> None:
    """One patient has one country: one coordinate, within the same clip norm and in one cell."""
    levels = data.draw(st.lists(st.from_regex(r"[A-Z]{2}", fullmatch=True), min_size=2,
                                max_size=30, unique=True))  # fmt: skip
    declared = (AGE, ILL, country_feature(levels))
    own = data.draw(st.integers(0, len(levels) - 1))
    ages = np.array(data.draw(st.lists(st.floats(0, 120), min_size=1, max_size=10)))
    table = {"age": ages, "ill": np.ones(len(ages)), COUNTRY: np.full(len(ages), float(own))}
    task = glm(inputs=("age", COUNTRY), by_country=True, clip_norm=0.5, evaluation=None)
    block = task.rows(declared, table)[:, -len(levels) :]
    assert (block.sum(axis=1) == 1).all()
    assert (block[:, own] == 1).all()
    cohort = Cohort(declared, tuple(map(str, range(len(ages)))), table)
    mechanism = next(m for m in task.schedule(declared) if m.phase == "train")
    zero = np.zeros(task.dimension(declared))
    gradients = patient_gradients(task, cohort, zero)
    rounded = round_each(gradients, mechanism, entropy=entropy())
    assert ((rounded**2).sum(axis=1) <= mechanism.squared_sensitivity).all()
    assert not np.delete(rounded[:, -len(levels) :], own, axis=1).any()
