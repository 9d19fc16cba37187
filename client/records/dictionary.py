"""The data dictionary: the meaning of the columns in a country's file of records.

People write it as YAML. It states types, units, public bounds, codes, missing values, and the
column with the patient id. Reading values is strict: a value that the dictionary does not explain
is an error that names line and column.
"""

import contextlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from client.errors import RecordFault
from client.records.source import RecordedFeature
from client.records.value_formats import DateFormat, NumberFormat
from governance.documents.problems import LEVEL_IN_WORDS, SHOWN
from governance.documents.reading import read_settings
from governance.documents.yaml_text import PlainText
from keys.errors import reason_of
from protocols.tasks.features import (
    LEVEL,
    FeatureKind,
    FeatureName,
    Finite,
    parse_number,
    parse_truth,
)
from protocols.wire.encoding import canonical_json, digest

LARGEST_DICTIONARY = 1024 * 1024
MAX_VALUES = 500_000
"""Enough for the largest dictionary of 10,000 features."""
ROW_NUMBER = "row number"
WHOLE_NUMBER = re.compile(r"([+-]?\d{1,18})\.0*", re.ASCII)
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
LOOKS_TRUE_OR_FALSE = frozenset({"yes", "no", "on", "off"})
NEW_SETTINGS = ("encoding", "skip", "decimal", "thousands", "id_case")
"""They are left out of the digest unless they are used: records of earlier versions keep theirs."""


def normal_code(text: str) -> str:
    """Return a code without surrounding space and, if it is a whole number, without `.0`."""
    code = text.strip()
    number = WHOLE_NUMBER.fullmatch(code)
    return number.group(1) if number else code


def _as_code(value: object) -> object:
    if isinstance(value, bool) or value is None:
        raise ValueError("write this code in quotes: YAML reads it as true, false or null")
    if isinstance(value, int | float):
        return normal_code(getattr(value, "written", str(value)))
    return normal_code(value) if isinstance(value, str) else value


def _as_codes(value: object) -> object:
    """Refuse two spellings of one code, of which the last would win."""
    seen: dict[object, object] = {}
    for written in value if isinstance(value, dict) else ():
        code = _as_code(written)
        if code in seen:
            raise ValueError(f"`{seen[code]}` and `{written}` are the same code")
        seen[code] = written
    return value


def _as_meaning(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, PlainText) and value.lower() in LOOKS_TRUE_OR_FALSE:
        raise ValueError(
            f"write `{value}` in quotes if it is the name of a level; if this feature is true or "
            "false, give it `type: boolean` and write true or false"
        )
    if not isinstance(value, str):
        written = getattr(value, "written", "")
        quoted = f', such as "{written}"' if written else ""
        raise ValueError(f"write the name of a level in quotes{quoted}")  # noqa: TRY004 (pydantic reports ValueError)
    if not re.fullmatch(LEVEL, value):
        raise ValueError(f"expected {LEVEL_IN_WORDS}, found {repr(value)[:SHOWN]}")
    return value


def _as_name(value: object) -> object:
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise ValueError(
            "a feature's name has small letters, digits and underscores; write the name of its "
            f"column under `column`, found {repr(value)[:SHOWN]}"
        )
    return value


def _as_date_format(value: str) -> str:
    return DateFormat(value).form


Code = Annotated[str, BeforeValidator(_as_code), StringConstraints(max_length=256)]
Meaning = Annotated[bool | str, BeforeValidator(_as_meaning)]
Codes = Annotated[Mapping[Code, Meaning], BeforeValidator(_as_codes)]
Number = Annotated[Finite, Field(strict=True)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Encoding = Literal[
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1253",
    "windows-1254",
    "windows-1257",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-15",
]


class Entry(BaseModel):
    """One feature and the column that it is read from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[FeatureName, BeforeValidator(_as_name)]
    column: ColumnName | None = None
    type: FeatureKind
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    bounds: tuple[Number, Number] | None = None
    codes: Codes = {}
    missing: tuple[Code, ...] = ()
    true_above: Number | None = None
    date_format: Annotated[str, AfterValidator(_as_date_format)] | None = None

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
        above = self.true_above is not None
        if above and self.type is not FeatureKind.BOOLEAN:
            return "only a boolean feature can have true_above"
        if self.date_format and self.type is not FeatureKind.NUMERIC:
            return "only a numeric feature can have date_format"
        return "use only one of codes, true_above" if above and self.codes else ""

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

    def decoded(self, code: str) -> float:
        """Return the number for a code, if the column has no numbers. Raises ValueError."""
        return self._meaning(code) if self.codes else parse_truth(code)

    def _meaning(self, code: str) -> float:
        if code not in self.codes:
            raise ValueError(f"expected one of the codes {', '.join(self.codes)}")
        meaning = self.codes[code]
        return float(self.levels.index(meaning) if isinstance(meaning, str) else meaning)


class DataDictionary(BaseModel):
    """The layout of a country's file, and the features that are read from it.

    `patient` names the column of patient ids, or is `row number` if the file has none. If the file
    has no header line, `columns` names the columns in order. `skip` lines come before the header.
    With `id_case: ignore`, ids that differ only in capitals are one patient.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dictionary: Literal[1]
    title: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    header: bool = True
    columns: tuple[ColumnName, ...] = ()
    delimiter: Literal[",", ";", "\t", "|"] = ","
    encoding: Encoding = "utf-8"
    skip: Annotated[int, Field(ge=0, le=1_000)] = 0
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", " ", "'"] | None = None
    missing: tuple[Code, ...] = ("",)
    patient: ColumnName
    id_case: Literal["exact", "ignore"] = "exact"
    features: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problem = self._columns_problem() or self._features_problem()
        if not problem and self.decimal == self.thousands:
            problem = "`decimal` and `thousands` must differ"
        if problem:
            raise ValueError(problem)
        return self

    def _columns_problem(self) -> str:
        if self.header is bool(self.columns):
            return "use `columns` if `header: false`, and only then"
        if len(set(self.columns)) != len(self.columns):
            return "`columns` contains a name twice"
        absent = sorted(self.needed_columns - set(self.columns))
        missing = self.columns and absent
        return f"`columns` does not contain {', '.join(absent)}" if missing else ""

    def _features_problem(self) -> str:
        names = [entry.name for entry in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            return f"the feature name {', '.join(twice)} is used twice"
        for entry in self.features:
            both = {*entry.codes} & {*self.missing, *entry.missing}
            if both:
                codes = ", ".join(f"`{code}`" for code in sorted(both))
                return f"feature `{entry.name}`: {codes} is a code and listed under `missing` too"
        return ""

    @cached_property
    def needed_columns(self) -> frozenset[str]:
        """The columns of the file that are read."""
        ids = set() if self.patient == ROW_NUMBER else {self.patient}
        return frozenset(ids | {entry.source_column for entry in self.features})

    def id_keys(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the texts by which ids are compared: in one Unicode form, with case as declared.

        So `ü` as one character and as `u` with two dots are the same. Zeros count: `007` is not
        `7`.
        """
        if not "".join(ids).isascii():
            ids = [unicodedata.normalize("NFC", patient) for patient in ids]
        return ids if self.id_case == "exact" else [patient.casefold() for patient in ids]

    @property
    def identification(self) -> str:
        """By which column, and by which rules, a patient is identified."""
        return canonical_json([self.patient, self.id_case, self.encoding]).decode()

    def recorded(self) -> dict[str, RecordedFeature]:
        """Return the features that the node offers, by name."""
        return {entry.name: entry.recorded() for entry in self.features}

    def digest(self) -> str:
        """Return the digest of the dictionary's contents."""
        fields = self.model_dump(mode="json")
        defaults = type(self).model_fields
        for name in NEW_SETTINGS:
            if getattr(self, name) == defaults[name].default:
                del fields[name]
        for entry in fields["features"]:
            entry["true_for"] = []  # a former field: records keep their version
            if entry["date_format"] is None:
                del entry["date_format"]
        return digest(canonical_json(fields))

    def value(self, entry: Entry, text: str) -> float:
        """Return the number for `text`, NaN if it means missing. Raises ValueError."""
        code = normal_code(text)
        if code in self.missing or code in entry.missing:
            return math.nan
        if entry.date_format:
            return DateFormat(entry.date_format).parse(code)
        if not entry.reads_numbers:
            return entry.decoded(code)
        number = self.numbers.parse(code)
        if number in self._sentinels[entry.name]:
            return math.nan
        return number if entry.true_above is None else float(number > entry.true_above)

    @cached_property
    def numbers(self) -> NumberFormat:
        """How the file's numbers are written."""
        return NumberFormat(self.decimal, self.thousands)

    @cached_property
    def _sentinels(self) -> Mapping[str, frozenset[float]]:
        """For each feature, the numbers that mean missing, however they are written."""
        return {
            entry.name: frozenset(_numbers((*self.missing, *entry.missing)))
            for entry in self.features
        }


def _numbers(codes: Sequence[str]) -> Iterator[float]:
    for code in codes:
        with contextlib.suppress(ValueError):
            yield parse_number(code)


def read_dictionary(path: Path) -> DataDictionary:
    """Return the dictionary in a YAML file. Raises RecordFault that names the wrong place."""
    try:
        return read_settings(
            DataDictionary, path, largest=LARGEST_DICTIONARY, most_values=MAX_VALUES
        )
    except OSError as error:
        raise RecordFault(
            f"The data dictionary {path} cannot be read",
            why=reason_of(error),
            fix="write a YAML file as docs/bring-your-own-data.md shows",
        ) from error
    except ValueError as error:
        raise RecordFault(
            f"The data dictionary {path} cannot be used",
            why=str(error),
            fix="correct these places in the file; docs/bring-your-own-data.md explains each field",
        ) from error
