"""Scores a CSV file with a released model, in the study's encoding; nothing is fitted to the file.

The file has a header with the study's feature names. Values are written in the study's terms:
numbers in its units, level names, true/false. An empty value or `?` is missing. Each row needs as
many fields as the header. Empty lines at the end are passed over, and refused before it: the
predictions are in the order of the rows, so none may be lost.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from governance.runtime.safe_text import in_backticks
from governance.runtime.text_files import decoded
from governance.runtime.wording import counted, lines_text
from keys.errors import reason_of
from protocols.tasks import Family, Feature, Missing, Predictor, Task
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import COUNTRY, predict_by_country
from protocols.tasks.features import FeatureKind, FloatArray, parse_value
from server.errors import CoordinatorFault
from server.learning.unseen_countries import Read, Rows, country_reader, unseen_countries

Fields = Mapping[str, str]
DELIMITERS = ";\t|"
SHOWN, SHOWN_HEADER = 40, 1000
HEADER_FIX = "give a CSV file with a header that names the study's input features"
ROW_FIX = "correct the line; a value that contains a comma needs quotes"


@dataclass(frozen=True)
class Predictions:
    """A header, a row of predictions for each row of the file, and remarks for the reader."""

    header: tuple[str, ...]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def predict_file(
    task: Task,
    features: Sequence[Feature],
    weights: FloatArray,
    source: Path,
    *,
    baselines: CountryBaselines | None = None,
) -> Predictions:
    """Return predictions for each row of `source`, in order.

    A yes/no target gives its probability; a category gives the top level and a probability for
    each level; a number gives the prediction in its unit. A patient whom the study would exclude
    for a missing value gets empty cells. A number beyond the study's bounds is clipped as in
    training, and a note names its line. With `baselines`, a patient of a country that did not train
    the model, or of none, is predicted by their rule, and a note names the line. Raises
    CoordinatorFault with line and column, or if the model cannot be applied here.
    """
    if not isinstance(task, Predictor):
        raise _not_applicable(task)
    inputs = task.input_features(features)
    rows = _read(source, inputs)
    readers = {COUNTRY: country_reader(features, baselines)} if baselines else {}
    columns = _columns(inputs, rows, source, readers)
    complete = _complete([f for f in inputs if f.name not in readers], columns)
    scored = {name: column[complete] for name, column in columns.items()}
    predicted = _predicted(task, features, weights, scored, baselines)
    target = task.target_feature(features)
    predictions = iter(_rows(task.family, target, predicted))
    header = _header(task.family, target)
    empty = [""] * len(header)
    return Predictions(
        header,
        [next(predictions) if scorable else empty for scorable in complete],
        (
            *_notes(inputs, columns, [line for line, _ in rows]),
            *(unseen_countries(task, baselines, rows) if baselines else ()),
        ),
    )


def _predicted(
    task: Predictor,
    features: Sequence[Feature],
    weights: FloatArray,
    columns: Mapping[str, FloatArray],
    baselines: CountryBaselines | None,
) -> FloatArray:
    if baselines is None:
        return task.predict(features, weights, task.rows(features, columns))
    return predict_by_country(task, features, weights, columns, baselines.countries)


def _notes(
    inputs: Sequence[Feature], columns: Mapping[str, FloatArray], lines: Sequence[int]
) -> Iterator[str]:
    if not lines:
        yield "the file has a header and no rows, so there is nothing to predict"
    for feature in inputs:
        low, high = feature.limits
        column = columns[feature.name]
        beyond = np.flatnonzero((column < low) | (column > high)).tolist()
        if feature.type is FeatureKind.NUMERIC and beyond:
            values = counted(len(beyond), "value is", "values are")
            yield (
                f"column `{feature.name}`: {values} beyond the study's bounds {low:g} to {high:g}, "
                f"and clipped to them as in training ({lines_text([lines[n] for n in beyond])})"
            )


def _header(family: Family, target: Feature) -> tuple[str, ...]:
    if family is not Family.MULTINOMIAL:
        return (target.name,)
    return (target.name, *(f"{target.name}={level}" for level in target.levels))


def _rows(family: Family, target: Feature, predicted: FloatArray) -> list[list[str]]:
    if family is Family.LINEAR:
        predicted = target.unscaled(predicted)
    texts = [[f"{value:.6g}" for value in row] for row in predicted]
    if family is not Family.MULTINOMIAL:
        return texts
    top = predicted.argmax(axis=1)
    return [[target.levels[index], *row] for index, row in zip(top, texts, strict=True)]


def _complete(inputs: Sequence[Feature], columns: Mapping[str, FloatArray]) -> NDArray[np.bool_]:
    required = [columns[f.name] for f in inputs if f.missing is Missing.EXCLUDE]
    count = len(next(iter(columns.values())))
    absent = [np.isnan(column) for column in required]
    return ~np.any(absent, axis=0) if absent else np.ones(count, dtype=np.bool_)


def _columns(
    inputs: Sequence[Feature], rows: Rows, source: Path, readers: Mapping[str, Read]
) -> dict[str, FloatArray]:
    """Return the columns; `readers` replace the usual reading of a feature's texts."""
    columns = {}
    for feature in inputs:
        read = readers.get(feature.name, partial(parse_value, feature))
        values = [_value(read, feature, line, fields, source) for line, fields in rows]
        columns[feature.name] = np.array(values, dtype=float)
    return columns


def _value(read: Read, feature: Feature, line: int, fields: Fields, source: Path) -> float:
    text = fields[feature.name]
    try:
        return read(text)
    except ValueError as error:
        raise CoordinatorFault(
            f"The file {source}, line {line}, column `{feature.name}`: "
            f"{text[:SHOWN]!r} cannot be read",
            why=str(error),
            fix="write the value in the study's terms, or leave it empty if it is missing",
        ) from error


def _read(source: Path, inputs: Sequence[Feature]) -> Rows:
    try:
        text = decoded(source.read_bytes())
    except OSError as error:
        raise _unusable(source, reason_of(error), "check the name of the file") from error
    except ValueError as error:
        raise _unusable(
            source,
            str(error),
            "save it as CSV in UTF-8, or convert it, for example with "
            "`iconv -f windows-1252 -t utf-8`",
        ) from error
    return _aligned(_records(text, source), inputs, source)


def _records(text: str, source: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line on which it ends; a row without a value is empty."""
    reader = csv.reader(_lines(text), strict=True)
    begun = 1
    try:
        for fields in reader:
            yield reader.line_num, fields if any(field.strip() for field in fields) else []
            begun = reader.line_num + 1
    except csv.Error as error:
        why = f"line {begun}: a quoted value has no closing quote, or a quote in it is not doubled"
        raise _unusable(source, why, ROW_FIX) from error


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text with the line ends of any system."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return (f"{line}\n" for line in plain.removesuffix("\n").split("\n"))


def _aligned(
    records: Iterator[tuple[int, list[str]]], inputs: Sequence[Feature], source: Path
) -> Rows:
    _, header = next(records, (0, []))
    columns, rows = _column_indices(header, inputs, source), []
    empty = 0
    for line, fields in records:
        if not fields:
            empty = empty or line
            continue
        if empty:
            raise _unusable(source, f"line {empty} is empty", "remove the line, or fill it in")
        if len(fields) != len(header):
            why = f"line {line}: {len(header)} columns are expected, and the line has {len(fields)}"
            raise _unusable(source, why, ROW_FIX)
        rows.append((line, {name: fields[index] for name, index in columns.items()}))
    return rows


def _column_indices(header: list[str], inputs: Sequence[Feature], source: Path) -> dict[str, int]:
    if not header:
        raise _unusable(source, "the file is empty, or its first line is", HEADER_FIX)
    twice = [f.name for f in inputs if header.count(f.name) > 1]
    if twice:
        why = f"its header names these columns more than once: {', '.join(twice)}"
        raise _unusable(source, why, "rename or remove the others")
    absent = [f.name for f in inputs if f.name not in header]
    if absent:
        has = ", ".join(map(in_backticks, header))[:SHOWN_HEADER]
        why = f"its header has no column {', '.join(map(in_backticks, absent))}; it has {has}"
        raise _unusable(source, why, _fix_of_header(header))
    return {f.name: header.index(f.name) for f in inputs}


def _fix_of_header(header: Sequence[str]) -> str:
    other = next((sign for sign in DELIMITERS if len(header) == 1 and sign in header[0]), None)
    if other is None:
        return HEADER_FIX
    name = "a tab" if other == "\t" else f"`{other}`"
    return f"separate the columns by commas; this file seems to use {name}"


def _unusable(source: Path, why: str, fix: str) -> CoordinatorFault:
    return CoordinatorFault(f"The file {source} cannot be scored", why=why, fix=fix)


def _not_applicable(task: Task) -> CoordinatorFault:
    return CoordinatorFault(
        f"A model of `{task.kind}` cannot be applied here",
        why="only its module can do that, and modules are installed on nodes only",
        fix="load model.safetensors into the module that the study names; the tensors have the "
        "names of its parameters",
    )
