"""Meaning of each coordinate of a vector: encoded rows, cells of a table, models as bytes."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.errors import ProtocolFault
from protocols.tasks.features import (
    Columns,
    Feature,
    FeatureKind,
    FeatureName,
    Finite,
    FloatArray,
    Missing,
    lookup,
)

BIAS = "bias"
MISSING_CELL = "missing"
FLOAT_BYTES = 8
IntArray = NDArray[np.int64]


def input_names(inputs: Sequence[Feature]) -> tuple[str, ...]:
    """Return the names of an encoded row's coordinates, the bias first."""
    return (BIAS, *(name for feature in inputs for name in feature.coordinate_names))


def row_width(inputs: Sequence[Feature]) -> int:
    """Return the number of coordinates of an encoded row, the bias included."""
    return 1 + sum(feature.width for feature in inputs)


def encode_rows(inputs: Sequence[Feature], columns: Columns) -> FloatArray:
    """Return encoded rows, float64 (patients, coordinates); the bias coordinate is first and 1."""
    blocks = [feature.encode(columns[feature.name]) for feature in inputs]
    patients = len(next(iter(columns.values()))) if columns else 0
    return np.concatenate([np.ones((patients, 1)), *blocks], axis=1)


def vector_to_bytes(vector: FloatArray) -> bytes:
    """Return a vector as little-endian float64, row by row."""
    return np.ascontiguousarray(vector, dtype="<f8").tobytes()


def vector_from_bytes(data: bytes, dimension: int) -> FloatArray:
    """Return the float64 vector of `dimension` values.

    Raises ProtocolFault if the size is wrong or a value is not finite.
    """
    if len(data) != FLOAT_BYTES * dimension:
        raise ProtocolFault(
            f"A model has {len(data)} bytes, and {FLOAT_BYTES * dimension} are expected",
            why=f"the study's model has {dimension} coordinates",
        )
    vector = np.frombuffer(data, dtype="<f8").astype(np.float64)
    if not np.isfinite(vector).all():
        raise ProtocolFault("A model has a coordinate that is not a finite number")
    return vector


class Grouping(BaseModel):
    """Groups of patients by one feature: its levels, or intervals between declared edges.

    Edges e1 < e2 < … give the intervals below e1, from e1 to below e2, …, from the last edge up.
    If the study includes patients with a missing value, these are a separate group.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    feature: FeatureName
    edges: Annotated[tuple[Finite, ...], Field(max_length=1_000)] = ()

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"grouping by `{self.feature}`: edges must be in ascending order")
        return self

    def check(self, features: Mapping[str, Feature], role: str) -> None:
        """Raise ProtocolFault if the feature is unknown or the edges do not fit it."""
        feature = lookup(features, self.feature, role)
        if (feature.type is FeatureKind.NUMERIC) is bool(self.edges):
            return
        need = "needs edges" if feature.type is FeatureKind.NUMERIC else "has no edges"
        raise ProtocolFault(
            f"The {role} groups by `{self.feature}`, a {feature.type} feature, which {need}",
            why="groups are levels of a category, or intervals of a number between public edges",
            fix="add or remove `edges` in the study",
        )

    def size(self, feature: Feature) -> int:
        """Return the number of groups."""
        return self._present_size(feature) + (feature.missing is not Missing.EXCLUDE)

    def _present_size(self, feature: Feature) -> int:
        if feature.type is FeatureKind.BOOLEAN:
            return 2
        categorical = feature.type is FeatureKind.CATEGORICAL
        return len(feature.levels) if categorical else len(self.edges) + 1

    def labels(self, feature: Feature) -> tuple[str, ...]:
        """Return the names of the groups, in the order of their cells."""
        present = self._present_labels(feature)
        return present if feature.missing is Missing.EXCLUDE else (*present, MISSING_CELL)

    def _present_labels(self, feature: Feature) -> tuple[str, ...]:
        if feature.type is FeatureKind.BOOLEAN:
            return ("false", "true")
        if feature.type is FeatureKind.CATEGORICAL:
            return feature.levels
        inner = [
            f"{low:g} to <{high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)
        ]
        return (f"<{self.edges[0]:g}", *inner, f">={self.edges[-1]:g}")

    def cells(self, feature: Feature, column: FloatArray) -> IntArray:
        """Return each patient's group, as an index into `labels`."""
        absent = np.isnan(column)
        present = np.where(absent, 0.0, column)
        numeric = feature.type is FeatureKind.NUMERIC
        group = np.searchsorted(self.edges, present, side="right") if numeric else present
        return np.where(absent, self._present_size(feature), group).astype(np.int64)


def cell_labels(
    groupings: Sequence[Grouping], features: Mapping[str, Feature]
) -> tuple[tuple[str, ...], ...]:
    """Return the labels of each cell of the cross product; the last grouping varies fastest."""
    return tuple(product(*(g.labels(features[g.feature]) for g in groupings)))


def cell_indices(
    groupings: Sequence[Grouping], features: Mapping[str, Feature], columns: Columns, patients: int
) -> IntArray:
    """Return each patient's cell, as an index into `cell_labels`."""
    index = np.zeros(patients, dtype=np.int64)
    for grouping in groupings:
        feature = features[grouping.feature]
        index = index * grouping.size(feature) + grouping.cells(feature, columns[grouping.feature])
    return index
