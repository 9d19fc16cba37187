"""A study's features: what a value means, its public bounds, and how it is encoded as numbers.

Everything that affects the encoding (bounds, centre, spread, fill, levels) is public and signed in
the study; nothing is computed from records. Node and coordinator both encode with this module.
A column is a float64 array: a number; 0 or 1 for a boolean; the index of the level for a
categorical feature. A missing value is NaN, never zero.
"""

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protocols.errors import ProtocolFault

FloatArray = NDArray[np.float64]
Columns = Mapping[str, FloatArray]
FeatureName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
LEVEL = r"^[A-Za-z0-9][A-Za-z0-9 _.+/<>-]{0,63}$"
Level = Annotated[str, StringConstraints(pattern=LEVEL)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Value = float | bool | str
"""A number, true or false, or the name of a level."""
MAX_LEVELS = 1_000
DECIMAL = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
TRUE_WORDS = frozenset({"true", "yes", "1"})
FALSE_WORDS = frozenset({"false", "no", "0"})


class FeatureKind(StrEnum):
    """The type of a feature's values."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"


class Missing(StrEnum):
    """What a study does with a patient whose value is missing."""

    EXCLUDE = "exclude"
    """The patient is left out of the study."""
    IMPUTE = "impute"
    """The public value `fill` is used instead."""
    INDICATOR = "indicator"
    """The feature's coordinates are zero, and a further one, `<name> is missing`, is one."""


class Feature(BaseModel):
    """One feature of a study.

    Numeric values are clipped to `bounds`, then encoded as (value - centre) / spread; centre and
    spread default to the middle and half the width of the bounds. A boolean is 0 or 1 before the
    same encoding, and by default -1 or 1 after it; its fill may also be between 0 and 1, such as
    0.5 for "unknown".
    A categorical value is one-hot over `levels`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FeatureName
    type: FeatureKind
    bounds: tuple[Finite, Finite] | None = None
    levels: Annotated[tuple[Level, ...], Field(max_length=MAX_LEVELS)] = ()
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    centre: Finite | None = None
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    missing: Missing = Missing.EXCLUDE
    fill: Finite | bool | Level | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in (self._kind_problem(), self._scale_problem(), self._fill_problem()):
            if problem:
                raise ValueError(f"feature `{self.name}`: {problem}")
        return self

    def _kind_problem(self) -> str:
        if self.type is not FeatureKind.NUMERIC and self.bounds is not None:
            return "only a numeric feature has bounds"
        if self.type is FeatureKind.CATEGORICAL:
            distinct = len(set(self.levels)) == len(self.levels)
            return "" if len(self.levels) > 1 and distinct else "needs two or more distinct levels"
        return "only a categorical feature has levels" if self.levels else ""

    def _scale_problem(self) -> str:
        if self.type is FeatureKind.CATEGORICAL:
            unscaled = self.centre is self.spread is None
            return "" if unscaled else "a categorical feature has no centre or spread"
        if self.type is FeatureKind.NUMERIC and self.bounds is None:
            return "a numeric feature needs public bounds, such as `bounds: [0, 120]`"
        low, high = self.limits
        if not low < high:
            return "the lower bound must be below the upper bound"
        if (self.centre is None) is not (self.spread is None):
            return "declare centre and spread together, or neither"
        return "" if low <= self.midpoint <= high else "centre must be within the bounds"

    def _fill_problem(self) -> str:
        if self.missing is not Missing.IMPUTE:
            return "" if self.fill is None else "fill is used with `missing: impute` only"
        if self.fill is None:
            return "`missing: impute` needs a public fill value"
        return "" if self._fits(self.fill) else "fill must be a value that the feature can have"

    def _fits(self, value: Value) -> bool:
        if self.type is FeatureKind.CATEGORICAL:
            return value in self.levels
        low, high = self.limits
        truth = isinstance(value, bool) and self.type is FeatureKind.NUMERIC
        return not truth and not isinstance(value, str) and low <= value <= high

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper public bound; 0 and 1 for a boolean."""
        return self.bounds or (0.0, 1.0)

    @property
    def midpoint(self) -> float:
        """The value that is encoded as zero."""
        return sum(self.limits) / 2 if self.centre is None else self.centre

    @property
    def unit_width(self) -> float:
        """The distance from the midpoint that is encoded as one."""
        low, high = self.limits
        return (high - low) / 2 if self.spread is None else self.spread

    @property
    def width(self) -> int:
        """How many coordinates this feature has in an encoded row."""
        categorical = self.type is FeatureKind.CATEGORICAL
        values = len(self.levels) if categorical else 1
        return values + (self.missing is Missing.INDICATOR)

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of this feature's coordinates in an encoded row."""
        categorical = self.type is FeatureKind.CATEGORICAL
        names = tuple(f"{self.name}={lv}" for lv in self.levels) if categorical else (self.name,)
        return (*names, f"{self.name} is missing") if self.missing is Missing.INDICATOR else names

    def scaled(self, column: FloatArray) -> FloatArray:
        """Return values clipped to the public bounds, centred and divided by the spread."""
        low, high = self.limits
        values = np.asarray(np.maximum(column, low), dtype=np.float64)
        np.minimum(values, high, out=values)  # np.clip is three times slower than these two
        values -= self.midpoint
        values /= self.unit_width
        return values

    def unscaled(self, encoded: FloatArray) -> FloatArray:
        """Return encoded values in the feature's unit."""
        return np.asarray(encoded * self.unit_width + self.midpoint, dtype=np.float64)

    def encode(self, column: FloatArray) -> FloatArray:
        """Return the float64 block (patients, coordinates) of one column.

        With `exclude`, the caller has left out patients with a missing value; here it gives NaN.
        """
        block = self._encode_present(self._filled(column))
        if self.missing is not Missing.INDICATOR:
            return block
        absent = np.isnan(column)
        block[absent] = 0.0
        return np.column_stack([block, absent.astype(np.float64)])

    def _filled(self, column: FloatArray) -> FloatArray:
        if self.missing is not Missing.IMPUTE:
            return column
        return np.where(np.isnan(column), self.fill_number, column)

    def _encode_present(self, column: FloatArray) -> FloatArray:
        if self.type is not FeatureKind.CATEGORICAL:
            return self.scaled(column)[:, None]
        one_hot = (column[:, None] == np.arange(len(self.levels))).astype(np.float64)
        one_hot[np.isnan(column)] = math.nan
        return np.asarray(one_hot, dtype=np.float64)

    @property
    def fill_number(self) -> float:
        """The fill as a value of a column; NaN if the study declares none."""
        if isinstance(self.fill, str):
            return float(self.levels.index(self.fill))
        return math.nan if self.fill is None else float(self.fill)


def parse_value(feature: Feature, text: str) -> float:
    """Return the column's number for a text that uses the study's terms.

    Empty text and `?` are missing (NaN). Raises ValueError that names what was expected.
    """
    value = text.strip()
    if value in {"", "?"}:
        return math.nan
    if feature.type is FeatureKind.NUMERIC:
        return parse_number(value)
    if feature.type is FeatureKind.BOOLEAN:
        return parse_truth(value)
    if value not in feature.levels:
        raise ValueError(f"expected one of {', '.join(feature.levels)}")
    return float(feature.levels.index(value))


def parse_number(text: str) -> float:
    """Return a plain decimal number. Raises ValueError, also for `inf`, `nan`, `1_000`, `2,5`."""
    if not DECIMAL.fullmatch(text):
        hint = ", with a point and not a comma" if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text) else ""
        raise ValueError(f"expected a number{hint}")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("expected a number of ordinary size")
    return value


def parse_truth(text: str) -> float:
    """Return 1.0 or 0.0 for true/false, yes/no or 1/0. Raises ValueError."""
    value = text.lower()
    if value in TRUE_WORDS | FALSE_WORDS:
        return float(value in TRUE_WORDS)
    raise ValueError("expected true or false (or yes/no, 1/0); for other texts give `codes`")


class Condition(BaseModel):
    """One condition on a study's population: a range of a number, or a set of levels.

    A patient whose value is missing does not meet it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    feature: FeatureName
    at_least: Finite | None = None
    at_most: Finite | None = None
    one_of: Annotated[tuple[Level | bool, ...], Field(max_length=MAX_LEVELS)] = ()

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        ranged = self.at_least is not None or self.at_most is not None
        if ranged is bool(self.one_of):
            raise ValueError(
                f"condition on `{self.feature}`: give at_least and/or at_most, or one_of"
            )
        return self

    def met(self, feature: Feature, column: FloatArray) -> NDArray[np.bool_]:
        """Return which patients meet the condition, from the feature's column."""
        if self.one_of:
            return np.isin(column, self._numbers(feature))
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return np.asarray((column >= low) & (column <= high))

    def _numbers(self, feature: Feature) -> list[float]:
        indices = {level: index for index, level in enumerate(feature.levels)}
        return [float(indices[v] if isinstance(v, str) else v) for v in self.one_of]

    def check(self, feature: Feature) -> None:
        """Raise ProtocolFault if the condition does not fit the feature's type."""
        numeric = feature.type is FeatureKind.NUMERIC
        if numeric is bool(self.one_of):
            need = "at_least or at_most" if numeric else "one_of"
            raise _unfit(self.feature, f"{feature.type} features are limited by {need}")
        levels = frozenset(feature.levels)
        for value in self.one_of:
            known = feature.type is FeatureKind.BOOLEAN or value in levels
            if isinstance(value, bool) is not (feature.type is FeatureKind.BOOLEAN) or not known:
                raise _unfit(self.feature, f"`{value}` is not a value of this feature")


def _unfit(name: str, why: str) -> ProtocolFault:
    return ProtocolFault(
        f"The condition on `{name}` does not fit the feature",
        why=why,
        fix="correct the condition, or the feature, in the study",
    )


def by_name(features: Sequence[Feature]) -> dict[str, Feature]:
    """Return the features by name. Raises ProtocolFault if a name is used twice."""
    table = {feature.name: feature for feature in features}
    if len(table) != len(features):
        raise ProtocolFault(
            "Two features have the same name",
            why="a task refers to features by name",
            fix="rename one of them in the study",
        )
    return table


def lookup(features: Mapping[str, Feature], name: str, role: str) -> Feature:
    """Return a feature by name. Raises ProtocolFault that names the `role` which uses it."""
    if name in features:
        return features[name]
    raise ProtocolFault(
        f"The {role} names the feature `{name}`, which the study does not declare",
        why=f"declared are: {', '.join(sorted(features)) or 'none'}",
        fix="add it under `features`, or correct the spelling",
    )
