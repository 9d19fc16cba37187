"""The data dictionary: the meaning of the columns in a country's file of records.

People write it as YAML. It states types, units, public bounds, codes, missing values, and the
column with the patient id. Reading values is strict: a value that the dictionary does not explain
is an error that names line and column.
"""

import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from client.errors import RecordFault
from client.records.source import RecordedFeature
from governance.documents.reading import read_settings
from keys.errors import reason_of
from protocols.tasks.features import (
    FeatureKind,
    FeatureName,
    Finite,
    Level,
    parse_number,
    parse_truth,
)
from protocols.wire.encoding import canonical_json, digest

LARGEST_DICTIONARY = 1024 * 1024
ROW_NUMBER = "row number"
WHOLE_NUMBER = re.compile(r"([+-]?\d{1,18})\.0*", re.ASCII)


def normal_code(text: str) -> str:
    """Return a code without surrounding space and, if it is a whole number, without `.0`."""
    code = text.strip()
    number = WHOLE_NUMBER.fullmatch(code)
    return number.group(1) if number else code


def _as_code(value: object) -> object:
    if isinstance(value, bool) or value is None:
        raise ValueError("write this code in quotes: YAML reads it as true, false or null")
    return normal_code(str(value)) if isinstance(value, (str, int, float)) else value


Code = Annotated[str, BeforeValidator(_as_code), StringConstraints(max_length=256)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Entry(BaseModel):
    """One feature and the column that it is read from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FeatureName
    column: ColumnName | None = None
    type: FeatureKind
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    bounds: tuple[Finite, Finite] | None = None
    codes: Mapping[Code, bool | Level] = {}
    missing: tuple[Code, ...] = ()
    true_above: Finite | None = None
    true_for: tuple[Code, ...] = ()

    @property
    def source_column(self) -> str:
        """The column that the feature is read from: `column`, or else the feature's name."""
        return self.column or self.name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problem = self._type_problem() or self._rule_problem()
        if problem:
            raise ValueError(f"feature `{self.name}`: {problem}")
        return self

    def _type_problem(self) -> str:
        if self.type is FeatureKind.NUMERIC:
            problem = self._bounds_problem()
            return problem or ("a numeric feature cannot have codes" if self.codes else "")
        if self.bounds is not None:
            return "only a numeric feature can have bounds"
        boolean = self.type is FeatureKind.BOOLEAN
        if any(isinstance(value, bool) is not boolean for value in self.codes.values()):
            meaning = "true or false" if boolean else "levels"
            return f"the codes of a {self.type} feature must mean {meaning}"
        few = not boolean and len(set(self.codes.values())) < 2  # noqa: PLR2004 - a single level is no choice
        return "a categorical feature needs codes for at least two levels" if few else ""

    def _bounds_problem(self) -> str:
        if self.bounds is None:
            return "a numeric feature needs public bounds, such as `bounds: [0, 120]`"
        low, high = self.bounds
        if low < high:
            return ""
        rule = "the two must differ" if low == high else "the smaller comes first"
        return f"bounds [{low:g}, {high:g}]: {rule}"

    def _rule_problem(self) -> str:
        rules = [bool(self.codes), self.true_above is not None, bool(self.true_for)]
        if any(rules[1:]) and self.type is not FeatureKind.BOOLEAN:
            return "only a boolean feature can have true_above or true_for"
        return "use only one of codes, true_above, true_for" if sum(rules) > 1 else ""

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """The levels of a categorical feature, in the order of the codes."""
        return tuple(dict.fromkeys(v for v in self.codes.values() if isinstance(v, str)))

    @property
    def reads_numbers(self) -> bool:
        """Whether the column has numbers, and not codes."""
        return self.type is FeatureKind.NUMERIC or self.true_above is not None

    def recorded(self) -> RecordedFeature:
        """Return the feature as the node offers it to studies."""
        return RecordedFeature(self.name, self.type, self.unit, self.bounds, self.levels)

    def value(self, text: str) -> float:
        """Return the number for a text that does not mean missing. Raises ValueError."""
        code = normal_code(text)
        if self.codes:
            return self._decoded(code)
        if self.true_above is not None:
            return float(parse_number(code) > self.true_above)
        if self.true_for:
            return float(code in self.true_for)
        return parse_truth(code) if self.type is FeatureKind.BOOLEAN else parse_number(code)

    def _decoded(self, code: str) -> float:
        if code not in self.codes:
            raise ValueError(f"expected one of the codes {', '.join(self.codes)}")
        meaning = self.codes[code]
        return float(self.levels.index(meaning) if isinstance(meaning, str) else meaning)


class DataDictionary(BaseModel):
    """The layout of a country's file, and the features that are read from it.

    `patient` names the column of patient ids, or is `row number` if the file has none. If the file
    has no header line, `columns` names the columns in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dictionary: Literal[1]
    title: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    header: bool = True
    columns: tuple[ColumnName, ...] = ()
    delimiter: Literal[",", ";", "\t", "|"] = ","
    missing: tuple[Code, ...] = ("",)
    patient: ColumnName
    features: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.header is bool(self.columns):
            raise ValueError("use `columns` if `header: false`, and only then")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("`columns` contains a name twice")
        names = [entry.name for entry in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the feature name {', '.join(twice)} is used twice")
        absent = sorted(self.needed_columns - set(self.columns))
        if self.columns and absent:
            raise ValueError(f"`columns` does not contain {', '.join(absent)}")
        return self

    @cached_property
    def needed_columns(self) -> frozenset[str]:
        """The columns of the file that are read."""
        ids = set() if self.patient == ROW_NUMBER else {self.patient}
        return frozenset(ids | {entry.source_column for entry in self.features})

    def recorded(self) -> dict[str, RecordedFeature]:
        """Return the features that the node offers, by name."""
        return {entry.name: entry.recorded() for entry in self.features}

    def digest(self) -> str:
        """Return the digest of the dictionary's contents."""
        return digest(canonical_json(self.model_dump(mode="json")))

    def value(self, entry: Entry, text: str) -> float:
        """Return the number for `text`, NaN if it means missing. Raises ValueError."""
        code = normal_code(text)
        if code in self.missing or code in entry.missing:
            return math.nan
        return entry.value(text)


def read_dictionary(path: Path) -> DataDictionary:
    """Return the dictionary in a YAML file. Raises RecordFault that names the wrong place."""
    text = _text(path)
    try:
        return read_settings(DataDictionary, text)
    except ValueError as error:
        raise RecordFault(
            f"The data dictionary {path} cannot be used",
            why=str(error),
            fix="correct these places in the file; docs/bring-your-own-data.md explains each field",
        ) from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_DICTIONARY:
            raise _unreadable(path, f"it is larger than {LARGEST_DICTIONARY} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, reason_of(error)) from error


def _unreadable(path: Path, why: str) -> RecordFault:
    return RecordFault(
        f"The data dictionary {path} cannot be read",
        why=why,
        fix="write a YAML file as docs/bring-your-own-data.md shows",
    )
